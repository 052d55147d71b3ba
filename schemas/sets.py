"""What stands beside the rows of a training set, as JSON: its manifest, and its leaks."""

from pydantic import Field

from schemas.config import Frozen
from schemas.recipes import Recipe


class SetRun(Frozen):
    """A run that a set is made of."""

    run_id: str
    fingerprint: str
    objects: dict[str, str]  # the digest of each trace object, by its name below `traces/`
    # The folders of a plan's parts after the first, named by their digests: they say how many
    # rollouts there should be.
    extensions: tuple[str, ...] = Field(default=(), exclude_if=lambda folders: not folders)


class SetInputs(Frozen):
    """All that a set follows from. Says nothing of folders, hosts or times."""

    recipe: Recipe
    recipe_digest: str
    evaluation: dict[str, str]  # digests of the files with prompts that are left out, by name
    runs: tuple[SetRun, ...]  # in the order of their ids
    sidecars: dict[str, str]  # by scorer: one digest over its sidecars of all runs
    coppice: str  # versions
    pyarrow: str


class StreamFiles(Frozen):
    """The part files of one stream: of a task and split, or of an export and split."""

    num_rows: int
    files: tuple[str, ...]  # keys below the set, in the order of rows
    # Of each file, its SHA-256; only on the way to the manifest, which has them by file.
    digests: tuple[str, ...] = Field(default=(), exclude_if=lambda digests: not digests)


class UnitFiles(Frozen):
    """What was put of one unit of a set, by stream; stands beside an unfinished set."""

    files: dict[str, StreamFiles]
    left_out: dict[str, dict[str, int]] = Field(default_factory=dict)  # rows by export and reason


class ExportNote(Frozen):
    """What an export of a set is, and what it left out."""

    version: int  # of the export's form
    consumer: str  # and the version of it that the form is tested with
    coppice: str  # that wrote it
    left_out: dict[str, int]  # rows by reason


class SetManifest(Frozen):
    """manifest.json. Written last: a set without one is unfinished."""

    training_format: int
    version: str  # 16 hex digits over the inputs
    inputs: SetInputs
    files: dict[str, StreamFiles]  # by stream, such as `sft/draw_2/train`
    # By name; those of the recipe, and those that were added since. Their rows are among `files`.
    exports: dict[str, ExportNote] = Field(
        default_factory=dict, exclude_if=lambda exports: not exports
    )
    # By key, the SHA-256 of each file of the set but this one. None in sets of version 0.1.
    digests: dict[str, str] = Field(default={}, exclude_if=lambda digests: not digests)
    digest: str = Field(default="", exclude_if=lambda digest: not digest)  # of all of the above


class Leak(Frozen):
    """A prompt that is left out since an evaluation set holds it."""

    record_id: str
    level: str  # of being equal: L0 to L3
