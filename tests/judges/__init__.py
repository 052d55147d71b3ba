"""Worked cases for the formulae of judges: `python -m tests.judges FILE.jsonl` checks a file."""
