"""The names and seeds that everything else is derived from.

Whatever this module returns is stored in data sets and decides which noise is drawn: an answer that
changes is another data set, so the tests hold fixed answers. It knows nothing of files or models.
"""

import json
import unicodedata
from hashlib import blake2b, sha256


def normalise(prompt: str) -> str:
    """The prompt in Unicode NFC, each run of white space one space, none at the ends.

    Case and punctuation are kept. Two prompts are exact duplicates if and only if their normalised
    forms are equal.
    """
    return " ".join(unicodedata.normalize("NFC", prompt).split())


def record_id(prompt: str) -> str:
    """A record's name in every file and run: 16 hex digits of the normalised prompt's SHA-256.

    Exact duplicates share it. The prompt must be encodable as UTF-8 (no lone surrogates).
    """
    return sha256(normalise(prompt).encode()).hexdigest()[:16]


def event_seed(
    run_seed: int,
    record_id: str,
    rollout_index: int,
    role: str,
    region: int,
    revision: int,
    candidate: int,
) -> int:
    """The seed of one event's noise, an unsigned 64 bit integer.

    It depends on what the event is, never on the batch, shard or worker that runs it; and since the
    revision counts, a redrawn region never meets the noise of the drawing that it replaces.
    """
    # A JSON list keeps the fields apart: (1, 23) and (12, 3) must not look alike.
    event = json.dumps([run_seed, record_id, rollout_index, role, region, revision, candidate])
    return int.from_bytes(blake2b(event.encode(), digest_size=8).digest(), "big")
