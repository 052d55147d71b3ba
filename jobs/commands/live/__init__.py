"""What a command shows while it works: how far it is, on one line."""
