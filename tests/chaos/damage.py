"""Damage of every kind and the advice on it, and flipped bits: what readers and users are told."""

from pathlib import Path

from tests.chaos.ledger import Ledger
from tests.damage import DAMAGE, FIRST, Site, make_site, walk
from tests.flips import flip, targets_of


def follow_advice(ledger: Ledger, folder: Path, *, step: int = 1) -> None:
    """Spoil a run in every `step`-th kind of damage, and do what commands say to the letter."""
    whole = make_site(folder / "whole")
    for number, kind in enumerate(DAMAGE):
        if number % step:
            continue
        for turn, first in enumerate(FIRST):
            site = whole.copied(folder / f"{number}-{turn}")
            DAMAGE[kind](site)
            with ledger.injecting(f"advice on: {kind}"):
                _follow(ledger, kind, site, first)


def flip_bits(ledger: Ledger, folder: Path, number: int, seed: int) -> None:
    """Flip so many bits. They are counted apart from all other faults."""
    flips = flip(list(targets_of(make_site(folder / "flipped"))), number, seed)
    ledger.flips += flips.found + flips.harmless
    ledger.wrong += [f"a reader is deceived: {what}" for what in flips.deceived]


def _follow(ledger: Ledger, kind: str, site: Site, first: str) -> None:
    try:
        walk(site, first)
    except Exception as error:  # an assertion of the walk, or a traceback that a user would see
        told = f"{kind}, {first}: {type(error).__name__}: {error}"
        what = str(error).partition(":")[0]
        {"lost": ledger.lost, "twice": ledger.twice}.get(what, ledger.wrong).append(told)
