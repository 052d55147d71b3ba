"""Whether a grown shard is to be believed: what looks like a broken worker, a broken model or a
broken run is not committed, and bad records are.
"""

from collections.abc import Mapping, Set
from typing import TypeAlias

from pipeline.engine.soundness import NOT_FINITE
from pipeline.file_names import quoted
from schemas.errors import InfrastructureFailure, TooManyDead
from schemas.runs import Grow, RunManifest, ShardFooter

Endings: TypeAlias = Mapping[str | None, Set[str]]
"""The records whose rollouts ended so, by the reason; None: well."""

_JUDGED_FROM = 200  # finished rollouts: a dead fraction of fewer says little


def doubt_worker(grow: Grow, footer: ShardFooter, *, has_done_well: bool) -> None:
    """Doubt a worker on which nothing has ended well yet: it may itself be what is wrong.

    The shard is left to another one, and believed when its second try comes out the same. Raises
    InfrastructureFailure.
    """
    if not footer.num_ok and not has_done_well and grow.attempt.number == 1:
        raise InfrastructureFailure(
            f"all {footer.num_dead} rollouts failed on a worker on which none has ended well",
            reason="sick_worker",
        )


def doubt_model(
    grow: Grow,
    footer: ShardFooter,
    endings: Endings,
    manifest: RunManifest,
    *,
    has_done_well: bool,
) -> None:
    """Doubt a model with which nothing has ended well in the whole run, if a second worker came
    upon what is no number in all rollouts, too: of several records that is no record's fault.

    Raises TooManyDead, unless the run puts up with any number of dead.
    """
    is_broken = endings.keys() == {NOT_FINITE} and len(endings[NOT_FINITE]) > 1
    has_any_done_well = has_done_well or grow.num_ok > 0
    if not is_broken or has_any_done_well or manifest.config.execution.max_dead_fraction == 1:
        return
    method = manifest.config.method
    other = "" if method.dtype == "float32" else " or with method.dtype=float32"
    raise TooManyDead(
        f"all {footer.num_dead} rollouts of shard {footer.shard} died of {NOT_FINITE}, on a second "
        f"worker, too, and none of the run has ended well: {method.model.name} is broken, or too "
        f"large for {method.dtype}; plan a run with sound weights{other}: "
        "coppice plan PROMPTS RUN --model MODEL"
    )


def doubt_run(grow: Grow, footer: ShardFooter, manifest: RunManifest, url: str) -> None:
    """Doubt a run in which more rollouts are dead than it puts up with. Raises TooManyDead."""
    num_dead = grow.num_dead + footer.num_dead
    num_finished = grow.num_ok + grow.num_dead + footer.num_rows
    limit = manifest.config.execution.max_dead_fraction
    if num_finished >= _JUDGED_FROM and num_dead > limit * num_finished:
        raise TooManyDead(
            f"{num_dead:,} of {num_finished:,} rollouts are dead, more than "
            f"{limit:.0%}; see why with: coppice show {quoted(url)}, and go on in spite of "
            "it with: --max-dead-fraction 1"
        )
