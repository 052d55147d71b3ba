"""The nouns of Coppice and every durable format. Imports nothing of ours."""

__version__ = "0.1.0"
