"""Prompts with specs: a parser, annotations, leaks into evaluation sets."""
