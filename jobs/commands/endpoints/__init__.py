"""What the commands around endpoints do: thoughts of a thinker alone, servers apart from runs."""
