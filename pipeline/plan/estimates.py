"""What a run is expected to weigh, and to take of a device whose rate was measured.

Of bytes, held within a factor of two by tests: on the toy, and on pictures and tokens of
Janus-Pro's sizes that have the entropy of real ones. How shards are cut does not depend on it.
"""

from dataclasses import dataclass
from math import log2

from pipeline.plan.models import ModelFacts
from schemas.config import Pictures, RunConfig
from schemas.geometry import Geometry

_FILE_BYTES = 45_000  # of a shard: schema, statistics, page index
_ROW_BYTES = 500  # keys, metadata, stack, timings
_TEXT_TOKEN_BYTES = 5  # ids and letters, beside the prefixes that repeat them
_LOGP_BYTES = 8  # two float32 a token, which do not compress
_PIXEL_BYTES = 1.4  # lossless WebP of a busy picture
_CANVAS_SHARE = 0.7  # of a full picture's bytes, of canvases that are filled region by region
_REDRAWN = 0.5  # of regions, where nobody knows better
_THOUGHT_TOKENS, _CRITIQUE_TOKENS = 45, 75


@dataclass(frozen=True, kw_only=True, slots=True)
class MeasuredRate:
    """Rollouts a second that a device made, half of the regions redrawn."""

    device: str
    num_layers: int  # of the language model
    num_tokens: int  # of a picture
    per_second: float


MEASURED = (
    # Janus-Pro-7B, 64 at once, compiled: docs/engine.md, "Measured"
    MeasuredRate(device="H200", num_layers=30, num_tokens=576, per_second=2.30),
)


def expected_bytes(
    config: RunConfig, geometry: Geometry, *, num_rollouts: int, num_shards: int
) -> int:
    """About what all traces weigh, all of them ok."""
    method = config.method
    num_regions = method.schedule.num_regions
    redrawn = _redrawn(config)
    drawn = geometry.num_tokens * (1 + redrawn)
    code_bytes = log2(geometry.num_codes) / 8
    logp_bytes = _LOGP_BYTES if method.sampling.with_logp else 0
    critique_tokens = _CRITIQUE_TOKENS if method.reflection.max_revisions else 0
    text_tokens = num_regions * (_THOUGHT_TOKENS + critique_tokens)
    pictures = {
        Pictures.NONE: 0.0,
        Pictures.FINAL: 1.0,
        Pictures.ALL: num_regions * (1 + redrawn) * _CANVAS_SHARE,
    }[method.pictures]
    rollout_bytes = (
        _ROW_BYTES
        + drawn * (code_bytes + logp_bytes)
        + geometry.num_tokens * code_bytes
        + text_tokens * _TEXT_TOKEN_BYTES
        + pictures * geometry.image_size**2 * _PIXEL_BYTES
    )
    return int(num_rollouts * rollout_bytes + num_shards * _FILE_BYTES)


def _redrawn(config: RunConfig) -> float:
    """The share of regions that are drawn again."""
    method = config.method
    if not method.reflection.max_revisions:
        return 0.0
    return method.fake.revise_share if method.backend == "fake" else _REDRAWN


def expected_seconds(
    config: RunConfig, facts: ModelFacts, *, num_rollouts: int
) -> tuple[float, str] | None:
    """About what the rollouts take of one device, and which; None where no rate was measured."""
    if config.method.backend != "engine":
        return None
    for rate in MEASURED:
        if (rate.num_layers, rate.num_tokens) == (facts.num_layers, facts.geometry.num_tokens):
            return num_rollouts / rate.per_second, rate.device
    return None
