"""From traces to training sets: scorers, and pictures of what was grown."""
