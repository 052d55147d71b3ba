"""What the commands around endpoints do: thoughts by a thinker alone, and servers apart from runs."""
