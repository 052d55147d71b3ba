"""A set computed again from its runs, with pyarrow and numpy alone: no code that selects or writes
is used, so that a fault of it cannot hide here. For audits, and for tests of toy size.
"""
