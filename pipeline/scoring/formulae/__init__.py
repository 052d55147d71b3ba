"""What judges make of a model's numbers: published formulae with their faults, and right ones.

Pure functions in double precision, without torch. Those called `published_...` reproduce, fault by
fault, what T2I-R1 (commit 2d9d4d1), T2I-CompBench (1b70949) and GenEval (af4902f) compute; the
others are right. There, None means that a score does not apply or cannot be told.
"""
