"""What one worker does: the method, the engine, storage. Never imports Ray."""
