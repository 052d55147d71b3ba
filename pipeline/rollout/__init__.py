"""How one worker makes it: the worker, the thread that owns its models, and traces."""
