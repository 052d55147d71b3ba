"""What it is worth: scorers, what they look at, and the sidecars of their scores."""
