"""Attention over a paged cache: the registered function, its kernel, and the pages."""
