"""The files of a checkpoint: where they lie, which ones count, what they are and who they are.

Nothing here loads a model. `places` finds a folder for a name; `listing` tells which files count;
`headers` and `names` what weights they hold; `digests` what they are the same as.
"""
