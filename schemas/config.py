"""The config of a run: `method` decides what is made, `execution` only how fast and where.

The fingerprint is a digest of `method` and the trace version. Two runs with one fingerprint make
the same tokens from the same records, on the same stack in strict mode.
"""

import hashlib
import math
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Literal, Self, TypeVar

from pydantic import Field, model_validator

from schemas.endpoints import MODEL_BACKENDS, EndpointExecution, EndpointMethod, check_names
from schemas.frozen import Frozen as Frozen
from schemas.json_values import JsonMapping, JsonObject, canonical_json
from schemas.trace import TRACE_VERSION, Role

T = TypeVar("T")

_MOST_ROWS = 2**20  # of a canvas

LONGEST_SECONDS = 1e9
"""Of any time that is waited: some thirty years, which every clock can wait."""

Seconds = Annotated[float, Field(le=LONGEST_SECONDS)]


class Program(StrEnum):
    """The paper's method and the baselines of its ablation."""

    THINK_WHILE = "think-while"
    THINK_BEFORE = "think-before"
    THINK_AFTER = "think-after"
    PLAIN = "plain"


THINKING_PROGRAMS = (Program.THINK_WHILE, Program.THINK_BEFORE)
"""Those that draw from thoughts."""


def can_divide_by(ratios: Sequence[float]) -> bool:
    """Whether the share of each of them is a number."""
    total = sum(ratios)
    return math.isfinite(total) and math.isfinite(_MOST_ROWS / total)


class ScheduleConfig(Frozen):
    """How the picture is cut into regions. K = 3 equal bands is the paper's best."""

    kind: Literal["equal", "ratios", "adaptive"] = "equal"
    num_regions: int = Field(default=3, ge=1, le=64)
    ratios: tuple[float, ...] | None = None  # only for kind "ratios"; any positive scale

    @model_validator(mode="after")
    def _ratios_belong_to_their_kind(self) -> Self:
        if (self.ratios is not None) != (self.kind == "ratios"):
            raise ValueError('give ratios if, and only if, kind is "ratios"')
        if self.ratios is not None and len(self.ratios) != self.num_regions:
            raise ValueError(f"{len(self.ratios)} ratios for {self.num_regions} regions")
        if self.ratios is not None and min(self.ratios) <= 0:
            raise ValueError("every ratio must be above 0")
        if self.ratios is not None and not can_divide_by(self.ratios):
            raise ValueError("no number can be divided by the sum of the ratios; give some near 1")
        return self


def _younger(default: T) -> T:
    """A setting that is younger than some runs. At its default, with which they were made, it is in
    no dump: neither in run.json nor in a digest.
    """
    field: T = Field(default=default, exclude_if=lambda value: bool(value == default))
    return field


class ReflectionConfig(Frozen):
    """When a region is judged and drawn again. theta 90 and one revision are the paper's."""

    max_revisions: int = Field(default=1, ge=0, le=8)  # 0: no reflection at all
    theta: int = Field(default=90, ge=0, le=100)
    on_unparseable: Literal["keep", "ask_again"] = "keep"
    combine: Literal["first", "mean", "all"] = _younger("first")  # of several critics


class SamplingConfig(Frozen):
    """How tokens are chosen. Temperature 0 takes the likeliest."""

    cfg_weight: float = Field(default=5.0, ge=0)
    image_temperature: float = Field(default=1.0, ge=0)
    text_temperature: float = Field(default=0.0, ge=0)
    text_top_p: float = Field(default=1.0, gt=0, le=1)
    max_text_tokens: int = Field(default=512, ge=1)
    with_logp: bool = True


class ModelConfig(Frozen):
    """Which weights. `digest` is of config, tokenizer and weights, taken when planning.

    Models of one digest are one model: the name is shown and says where to find it, no more.
    """

    name: str
    digest: str


class PackConfig(Frozen):
    """Which template pack; the digest is of its text."""

    name: str
    digest: str


class FakeConfig(Frozen):
    """What the fake backend pretends. Shares are of records, chosen by their seeds."""

    image_size: int = Field(default=384, ge=16)
    patch_size: int = Field(default=16, ge=8)
    num_codes: int = Field(default=16384, ge=2, le=65536)
    num_text_tokens: int = Field(default=40, ge=1)
    revise_share: float = Field(default=0.5, ge=0, le=1)
    unparseable_share: float = Field(default=0.0, ge=0, le=1)
    dead_share: float = Field(default=0.0, ge=0, le=1)
    delay_seconds: Seconds = Field(default=0.0, ge=0)

    @model_validator(mode="after")
    def _whole_patches(self) -> Self:
        if self.image_size % self.patch_size:
            raise ValueError(f"image_size must be a multiple of patch_size {self.patch_size}")
        return self


class Pictures(StrEnum):
    """Which pictures a trace keeps beside its tokens."""

    FINAL = "final"
    ALL = "all"
    NONE = "none"


Harm = Literal["exit", "hang", "hoard"]
"""What the fake does to its process on demand: kill it, never answer, or take all its memory."""

BackendName = Literal["engine", "reference", "fake"]
Dtype = Literal["float32", "bfloat16"]


class MethodConfig(Frozen):
    """Everything that the tokens and columns of a trace depend on."""

    model: ModelConfig
    backend: BackendName = "engine"
    backends: dict[Role, str | tuple[str, ...]] = Field(default_factory=dict)  # roles that differ
    endpoints: dict[str, EndpointMethod] = _younger({})  # that answer text roles
    program: Program = Program.THINK_WHILE
    thoughts: Literal["own", "given"] = _younger(
        "own"
    )  # given: they come with the prompts, in a column
    pack: PackConfig
    schedule: ScheduleConfig = ScheduleConfig()
    reflection: ReflectionConfig = ReflectionConfig()
    sampling: SamplingConfig = SamplingConfig()
    seed: int = Field(default=0, ge=0, lt=2**63)
    dtype: Dtype = "float32"  # where a config names none: the model's own, when it is planned
    strict: bool = False  # on a GPU, at a cost: same tokens in any batch. A CPU always is
    pictures: Pictures = Pictures.FINAL
    fake: FakeConfig = FakeConfig()

    @model_validator(mode="after")
    def _backends_are_there(self) -> Self:
        check_names(self.endpoints)
        for role in Role:
            names = self.backends_of(role)
            for name in names:
                if name not in MODEL_BACKENDS and name not in self.endpoints:
                    raise ValueError(
                        f"backends.{role} names {name!r:.60}: expected one of "
                        f"{', '.join([*MODEL_BACKENDS, *self.endpoints])}"
                        ", or an endpoint of that name under method.endpoints"
                    )
            if len(names) != 1 and role is not Role.REFLECT:
                raise ValueError(f"backends.{role} names {len(names)} backends: expected one")
            if not names or len(set(names)) < len(names):
                raise ValueError(f"backends.{role} is empty, or names one twice")
        if self.endpoints.keys() & set(self.backends_of(Role.DRAW)):
            raise ValueError("backends.draw names an endpoint: only a model draws")
        if self.reflection.combine != "first" and len(self.backends_of(Role.REFLECT)) == 1:
            raise ValueError(
                f"reflection.combine is {self.reflection.combine}, and there is one critic: name "
                "several as a list in backends.reflect"
            )
        return self

    def backends_of(self, role: Role) -> tuple[str, ...]:
        """The backends that are asked in a role: one, or several critics."""
        names = self.backends.get(role, self.backend)
        return (names,) if isinstance(names, str) else names

    def backend_of(self, role: Role) -> str:
        """The first backend of a role."""
        return self.backends_of(role)[0]

    @model_validator(mode="after")
    def _given_thoughts_are_used(self) -> Self:
        if self.thoughts == "given" and self.program not in THINKING_PROGRAMS:
            raise ValueError(
                f"thoughts are given, and {self.program} draws from none: use "
                f"{' or '.join(THINKING_PROGRAMS)}"
            )
        if self.thoughts == "given" and Role.THINK in self.backends:
            raise ValueError("thoughts are given, so backends.think answers nothing: leave it out")
        return self

    def sampling_of(self, backend: str) -> SamplingConfig:
        """How a backend's words are chosen: as the run's, but for what an endpoint says itself."""
        table = self.endpoints.get(backend)
        if table is None:
            return self.sampling
        own = {
            "text_temperature": table.temperature,
            "text_top_p": table.top_p,
            "max_text_tokens": table.max_tokens,
        }
        told = {name: value for name, value in own.items() if value is not None}
        return self.sampling.model_copy(update=told)

    @property
    def endpoints_in_use(self) -> dict[str, EndpointMethod]:
        """The endpoints that answer a role; others may be there for judging."""
        names = {name for role in Role for name in self.backends_of(role)}
        return {name: table for name, table in self.endpoints.items() if name in names}


class ExecutionConfig(Frozen):
    """How the work is spread. Changing it changes no token, so a resumed run may."""

    num_actors: int | None = Field(default=None, ge=1)  # at most; None: all that there is room for
    min_actors: int | None = Field(default=None, ge=1)  # asked for, also where there is no room yet
    device: Literal["auto", "gpu", "cpu"] = "auto"  # auto: GPUs if the cluster has any, or can
    gpus_per_actor: float = Field(default=1.0, gt=0)  # whole, or at most 1
    cpus_per_actor: float = Field(default=1.0, gt=0)
    resources: dict[str, float] = Field(
        default_factory=dict
    )  # an actor takes, by a cluster's names
    open_shards_per_actor: int = Field(default=2, ge=1, le=8)
    live_rollouts_per_actor: int = Field(default=128, ge=1)
    rows_per_actor: int = Field(default=256, ge=2)  # of the engine's batch; a drawing takes two
    cache_gigabytes: float | None = Field(default=None, gt=0)  # None: see pipeline.engine.backends
    compile: bool = True  # the language model, on a GPU; strict arithmetic never is
    max_shard_attempts: int = Field(default=3, ge=1)
    max_shard_infrastructure_failures: int = Field(default=20, ge=1)
    max_dead_fraction: float = Field(default=0.5, ge=0, le=1)  # more than that stops the run
    rollout_timeout_seconds: Seconds = Field(default=3600.0, gt=0)  # then it is dead
    no_progress_seconds: Seconds = Field(default=900.0, gt=0)  # of a worker: then it hangs
    node_check_seconds: Seconds = Field(default=20.0, ge=0)  # until Ray knows that a node is gone
    grace_seconds: Seconds = Field(default=30.0, ge=0)  # to commit in, after a first Ctrl-C
    store_patience_seconds: Seconds = Field(default=600.0, ge=0)
    beat_seconds: Seconds = Field(default=5.0, gt=0)  # of the driver, for others to see
    endpoints: dict[str, EndpointExecution] = Field(default_factory=dict)
    fake_harms: dict[str, Harm] = Field(default_factory=dict)  # by a text in the prompt; for tests


class RunConfig(Frozen):
    """The whole config, as it stands in run.json."""

    method: MethodConfig
    execution: ExecutionConfig = ExecutionConfig()
    model_files: dict[str, str] = Field(default_factory=dict)  # sha256 by name, found by planning

    @model_validator(mode="after")
    def _endpoints_have_both_halves(self) -> Self:
        for name in self.execution.endpoints.keys() - self.method.endpoints.keys():
            raise ValueError(
                f"execution.endpoints.{name:.60} is there, and method.endpoints.{name:.60} is not: "
                "say there which model it has"
            )
        for name in self.method.endpoints_in_use.keys() - self.execution.endpoints.keys():
            raise ValueError(
                f"method.endpoints.{name} answers, and execution.endpoints.{name} is not there: "
                "say there where it is, with url or serve"
            )
        return self


def named_as(method: MethodConfig, planned: MethodConfig) -> MethodConfig:
    """The method with the model under its planned name, if it is the same model."""
    if method.model.digest != planned.model.digest:
        return method
    return method.model_copy(update={"model": planned.model})


def fingerprint(method: MethodConfig) -> str:
    """What makes two runs the same: 16 hex digits over the method and the trace version."""
    body: JsonObject = {"method": _body(method), "trace_version": TRACE_VERSION}
    return hashlib.sha256(canonical_json(body).encode()).hexdigest()[:16]


def differences(planned: MethodConfig, current: MethodConfig) -> list[str]:
    """The fields in which two methods differ, one line each: `sampling.cfg_weight: 5.0 -> 4.0`."""
    old, new = _flat(_body(planned)), _flat(_body(current))
    names = sorted(old.keys() | new.keys())
    return [
        f"{name}: {old.get(name)} -> {new.get(name)}"
        for name in names
        if old.get(name) != new.get(name)
    ]


def _body(method: MethodConfig) -> JsonObject:
    """What the digest is of: endpoints that answer no role are not."""
    used = method.model_copy(update={"endpoints": method.endpoints_in_use})
    body: JsonObject = used.model_dump(mode="json")
    return body


def _flat(tree: JsonMapping, prefix: str = "") -> JsonObject:
    flat: JsonObject = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
