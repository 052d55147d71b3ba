"""A cut of the flips: `python -m tests.flips` is the whole of it."""

from pathlib import Path

from tests.damage import make_site
from tests.flips import flip, targets_of


def test_a_flipped_bit_anywhere_is_found_or_deceives_no_reader(tmp_path: Path):
    targets = list(targets_of(make_site(tmp_path / "site")))

    flips = flip(targets, 84, seed=7)

    assert flips.deceived == []
    assert flips.found.total() > 80
    assert len(flips.found) == 5
