"""The names of everything in a run. No other module spells a key.

What is parsed here is what is spelt here: a `try_` function answers None to every other name.
"""

import re

from schemas.scores import ScorerId

MANIFEST = "run.json"
SET_MANIFEST = "manifest.json"
PLAN = "plan"
TRACES = "traces"
SCORES = "scores"
EVALUATIONS = "eval"
ATTEMPTS = "_attempts"
RERUNS = "_reruns"
DRIVERS = "_drivers"
FOOTERS = "_footers"
DIGESTS = "_digests"
QUARANTINE = "_quarantine"
PREFLIGHT = "_preflight"
TEMPORARY = "_tmp"  # of the local store

_TRACES = re.compile(r"traces/shard-([0-9]{5,15})(?:\.s([1-9][0-9]{0,14}))?\.parquet")
_PLAN_FOLDER = re.compile(r"plan/([0-9]{4,15})-[^/]+")
_DRIVER = re.compile(r"_drivers/([0-9]{6,15})\.(?:json|beat|actors|progress)")
_FOOTERS = re.compile(r"_footers/([0-9a-f]{32})\.parquet")
_DIGEST = re.compile(r"_digests/(.+)\.([0-9a-f]{32})")
_EXTENSION = re.compile(r"plan/([0-9]{4,15})\.json")


def shard_name(shard: int) -> str:
    """`shard-00042`: at least five digits, more where a run has more shards."""
    return f"shard-{shard:05d}"


def plan_folder(number: int, digest: str) -> str:
    """Where part `number` of a plan, from 1, has its shard files; `digest` is of what they say."""
    return f"{PLAN}/{number:04d}-{digest}"


def try_number_of(folder: str) -> int | None:
    """The number of the part that a plan folder was made for; None for any other folder."""
    match = _PLAN_FOLDER.fullmatch(folder)
    return int(match[1]) if match else None


def plan_key(folder: str, shard: int) -> str:
    """The rollouts of a shard, in the folder of the part that planned it."""
    return f"{folder}/{shard_name(shard)}.parquet"


def rejects_key(folder: str) -> str:
    """The prompts that a part of a plan left out."""
    return f"{folder}/rejects.jsonl"


def extension_key(number: int) -> str:
    """What commits part `number` of a plan, from 2; part 1 stands in run.json."""
    return f"{PLAN}/{number:04d}.json"


def try_extension_of(key: str) -> int | None:
    """The number of the part that an object in `plan/` commits; None for any other object."""
    match = _EXTENSION.fullmatch(key)
    return int(match[1]) if match and extension_key(int(match[1])) == key else None


def traces_key(shard: int, supplement: int = 0) -> str:
    """The data object of a shard, whose existence is the commit; or one of its supplements."""
    return traces_object_key(traces_object_name(shard, supplement))


def traces_object_name(shard: int, supplement: int = 0) -> str:
    """`shard-00042.parquet`, `shard-00042.s1.parquet`: what sidecars are called, too."""
    suffix = f".s{supplement}" if supplement else ""
    return f"{shard_name(shard)}{suffix}.parquet"


def traces_object_key(name: str) -> str:
    """The data object of this name."""
    return f"{TRACES}/{name}"


def scores_folder(scorer: ScorerId) -> str:
    """Where the sidecars of a scorer lie."""
    return f"{SCORES}/{scorer}"


def sidecar_key(name: str, scorer: ScorerId) -> str:
    """What a scorer says of the data object of this name."""
    return f"{scores_folder(scorer)}/{name}"


def evaluation_key(suite: str) -> str:
    """The table of a suite, as `coppice eval` printed it last. Made anew from the scores."""
    return f"{EVALUATIONS}/{suite}.json"


def object_name(key: str) -> str:
    """The last part of a key."""
    return key.rpartition("/")[2]


def attempts_folder(shard: int) -> str:
    """The notes of how attempts at a shard failed."""
    return f"{ATTEMPTS}/{shard_name(shard)}"


def attempt_key(shard: int, attempt_id: str) -> str:
    return f"{attempts_folder(shard)}/{attempt_id}.json"


def rerun_key(rerun_id: str) -> str:
    """The frozen selection of a rerun."""
    return f"{RERUNS}/{rerun_id}.json"


def driver_key(number: int) -> str:
    """Who drives, or drove, under this number, from 1."""
    return f"{DRIVERS}/{number:06d}.json"


def beat_key(number: int) -> str:
    """The counter of a driver, which moves while it lives."""
    return f"{DRIVERS}/{number:06d}.beat"


def actors_key(number: int) -> str:
    """Where a driver's actors are; for people."""
    return f"{DRIVERS}/{number:06d}.actors"


def progress_key(number: int) -> str:
    """How far a driver is, and what its work took, told while it lives."""
    return f"{DRIVERS}/{number:06d}.progress"


def try_driver_of(key: str) -> int | None:
    """The number of the driver, from 1, that an object is of; None for any other object."""
    match = _DRIVER.fullmatch(key)
    return int(match[1]) if match else None


def footers_key(digest: str) -> str:
    """A log of footers with this digest, in hexadecimal."""
    return f"{FOOTERS}/{digest[:32]}.parquet"


def is_footers_key(key: str, digest: str) -> bool:
    """Whether `key` is what a log of footers with this digest is called."""
    return _FOOTERS.fullmatch(key) is not None and footers_key(digest) == key


def digest_key(key: str, digest: str) -> str:
    """Says that an object was written with this digest, in hexadecimal."""
    return f"{DIGESTS}/{key}.{digest[:32]}"


def digests_folder(key: str) -> str:
    """Where the digests of an object lie, with those of its neighbours."""
    return f"{DIGESTS}/{key}".rpartition("/")[0]


def try_object_of_digest(key: str) -> str | None:
    """The object that a digest is of; None for what is no digest."""
    match = _DIGEST.fullmatch(key)
    return match[1] if match else None


def quarantine_key(digest: str, key: str) -> str:
    """Where `coppice repair` moves a data object with this digest."""
    return f"{QUARANTINE}/{digest[:16]}/{object_name(key)}"


def try_shard_of(key: str) -> int | None:
    """The shard whose data object `key` is; None for any other object, a supplement say."""
    match try_traces_of(key):
        case (shard, 0):
            return shard
    return None


def try_traces_of(key: str) -> tuple[int, int] | None:
    """The shard and the supplement (0: the base) of a data object; None for any other object."""
    match = _TRACES.fullmatch(key)
    if match is None:
        return None
    shard, supplement = int(match[1]), int(match[2] or 0)
    is_ours = traces_key(shard, supplement) == key  # not with zeros too many
    return (shard, supplement) if is_ours else None
