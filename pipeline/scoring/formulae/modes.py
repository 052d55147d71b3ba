"""Which formula a judge applies to what its model said."""

from enum import StrEnum


class Mode(StrEnum):
    """Published formulae are kept with their faults, to compare with published numbers."""

    FIXED = "fixed"
    T2I_R1 = "t2i-r1"  # the rewards of T2I-R1, which TWIG trained with
    OFFICIAL = "official"  # T2I-CompBench and GenEval
