"""Servers that answer in words: how they are asked, what may go wrong, and what came of it."""
