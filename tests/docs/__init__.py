"""What README and docs tell one to type, typed."""
