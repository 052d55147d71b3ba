"""What stores say, and do, when something is wrong: their errors, their silence, their garbage."""
