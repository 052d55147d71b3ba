"""How many processes do it: the driver, its actors, the book of shards, the heartbeat."""
