"""What `coppice plan` does: a run's prompts, its config and its shards, frozen or extended."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from jobs.commands.job_folder import check_outlives_job
from jobs.commands.terminal import Terminal, as_typed, counted, duration, size
from pipeline.endpoints.keys import check_keys
from pipeline.endpoints.promises import describe_endpoints
from pipeline.plan.configs import (
    DEFAULT_MODEL,
    Resolved,
    Tables,
    check_fake,
    check_resources,
    read_config_file,
    resolve,
    validated,
    with_settings,
)
from pipeline.plan.estimates import expected_seconds
from pipeline.plan.models import prompt_limit
from pipeline.plan.planning import Plan, check_method, commit_plan, extend_plan, make_plan
from pipeline.plan.prompt_files import PromptSet, read_prompts
from pipeline.plan.prompt_rows import ReadOptions
from pipeline.plan.thoughts import thoughts_check
from pipeline.store.layout import rejects_key
from pipeline.store.open import open_store
from pipeline.store.plans import check_holds_no_set, read_manifest, try_read_manifest
from pipeline.store.preflight import preflight
from pipeline.toy.scenes import words_beyond
from schemas.config import RunConfig
from schemas.errors import InputError
from schemas.runs import RunManifest

_WARN_SHARD_BYTES = 10**9


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanRequest:
    """What the user asked for, unchecked."""

    sources: list[str]  # prompt files; empty: the run is planned already
    url: str  # of the run
    rollouts_per_record: int = 1
    rollouts_per_shard: int | None = None  # None: by an estimate
    skip_bad: bool = False
    reading: ReadOptions = field(default_factory=ReadOptions)  # of the prompt files
    num_records: int | None = None  # of a trial: the first so many; None: all
    config_file: str | None = None
    settings: list[str]  # NAME=VALUE

    def tables(self, under: Tables) -> Tables:
        """The config asked for, over the one that stands."""
        own = read_config_file(self.config_file) if self.config_file else None
        tables = with_settings(under if own is None else own, self.settings)
        check_fake(tables, with_settings(own or {}, self.settings))
        return tables

    def read_prompts(self, resolved: Resolved) -> PromptSet:
        """What the sources hold, as it was asked for. Raises InputError for what does not fit."""
        method, facts = resolved.config.method, resolved.facts
        return read_prompts(
            self.sources,
            limit=prompt_limit(facts, method, resolved.pack),
            check=thoughts_check(method, facts),
            skip_bad=self.skip_bad,
            options=self.reading,
            first=self.num_records,
        )


def plan_run(request: PlanRequest, terminal: Terminal) -> RunManifest:
    """Read the prompts, resolve the config, and commit the plan. Returns it as asked for now.

    Nothing is written if a prompt cannot be used, or the run is planned otherwise: raises
    InputError, ConfigMismatch.
    """
    check_outlives_job(request.url)
    store = open_store(request.url)
    before = try_read_manifest(store)
    if before is None:
        check_holds_no_set(store)
    resolved = resolve(request.tables({}), before.config.method if before else None)
    check_keys(resolved.config)
    prompts = request.read_prompts(resolved)
    plan = make_plan(
        prompts,
        resolved.config,
        resolved.facts,
        sources=request.sources,
        rollouts_per_record=request.rollouts_per_record,
        rollouts_per_shard=request.rollouts_per_shard,
    )
    preflight(store)
    manifest = commit_plan(store, plan, prompts, resolved.config, resolved.facts)
    terminal.say(*_describe_plan(store.url, manifest, plan, resolved), *_describe_reading(prompts))
    is_told = any(setting.strip().startswith("execution.") for setting in request.settings)
    if is_told and manifest.config.execution != resolved.config.execution:
        terminal.say("The plan keeps its execution settings: those given hold for this command.")
    terminal.say(*_describe_foreign(prompts, resolved.config))
    return manifest.model_copy(update={"config": resolved.config})


def extend_run(request: PlanRequest, terminal: Terminal) -> RunManifest:
    """Add to a plan what it lacks of what is asked for. Raises ConfigMismatch, InputError."""
    before = load_run(request)
    store = open_store(request.url)
    if before.config.execution != read_manifest(store).config.execution:
        raise InputError(
            "an extension keeps how the run was planned to be carried out: leave execution "
            f"settings out, and give them to: coppice run {as_typed(store.url)}"
        )
    prompts = PromptSet(prompts=[], num_duplicates=0, rejects=[])
    if request.sources:
        resolved = resolve(before.config.model_dump(mode="json"))
        check_method(before, resolved.config, store.url)
        prompts = request.read_prompts(resolved)
        terminal.say(*_describe_foreign(prompts, resolved.config))
    after = extend_plan(
        store,
        prompts,
        sources=request.sources,
        rollouts_per_record=request.rollouts_per_record,
        rollouts_per_shard=request.rollouts_per_shard,
    )
    terminal.say(*_describe_reading(prompts))
    url = as_typed(store.url)
    added = [part for part in after.parts if part not in before.parts]
    if not added:
        terminal.say(f"Nothing to add: {url} has at least {request.rollouts_per_record} of each.")
        return after
    num_rollouts = sum(part.num_rollouts for part in added)
    num_shards = sum(part.num_shards for part in added)
    terminal.say(
        f"Added {counted(num_rollouts, 'rollout')} in {counted(num_shards, 'shard')}: "
        f"{url} has {after.num_rollouts:,} in {after.num_shards:,} now.",
        f"Next: coppice run {url}",
    )
    return after


def load_run(request: PlanRequest) -> RunManifest:
    """A run that is planned, with the execution asked for now.

    Raises ConfigMismatch, and InputError for options that nothing is there for.
    """
    is_reading = request.num_records or request.skip_bad or request.reading != ReadOptions()
    if not request.sources and is_reading:
        raise InputError(
            "--limit, --skip-bad, --prompt-column, --drop-columns and --fold-newlines say how "
            "prompt files are read, and there are none; give some before the run, or leave these "
            "options out"
        )
    check_outlives_job(request.url)
    store = open_store(request.url)
    manifest = read_manifest(store)
    preflight(store)
    planned = manifest.config.model_dump(mode="json")
    asked = request.tables(planned)
    if asked.get("method") != planned["method"]:
        # Reads the model's files, so only when it can matter.
        resolved = resolve(asked, manifest.config.method)
        check_method(manifest, resolved.config, store.url)
        check_keys(resolved.config)
        return manifest.model_copy(update={"config": resolved.config})
    config = validated(RunConfig, asked)
    check_resources(config.execution)
    check_keys(config)
    return manifest.model_copy(update={"config": config})


def _describe_plan(
    run_url: str, manifest: RunManifest, plan: Plan, resolved: Resolved
) -> list[str]:
    method, part, url = resolved.config.method, manifest.plan, as_typed(run_url)
    estimate = f"about {size(plan.num_bytes)}"
    expected = expected_seconds(resolved.config, resolved.facts, num_rollouts=part.num_rollouts)
    if expected:
        estimate += f" and {duration(expected[0])} of one {expected[1]}"
    program = method.program.value + (" from given thoughts" if method.thoughts == "given" else "")
    in_dtype = "" if method.backend == "fake" else f", {method.dtype}"
    lines = [
        f"Run {manifest.run_id} at {url}: {program} with {method.model.name} "
        f"({method.backend}{in_dtype}).",
        f"Planned: {counted(part.num_records, 'record')} x "
        f"{counted(part.rollouts_per_record, 'rollout')} in {counted(part.num_shards, 'shard')} "
        f"of up to {part.rollouts_per_shard}, {estimate}.",
        f"Fingerprint: {manifest.fingerprint}.",
    ]
    lines += describe_endpoints(resolved.config)
    if part.num_duplicates or part.num_rejects:
        rejects = f"; rejects: {url}/{rejects_key(part.folder)}" if part.num_rejects else ""
        lines.append(
            f"Left out: {counted(part.num_duplicates, 'exact duplicate')}, "
            f"{counted(part.num_rejects, 'unusable prompt')}{rejects}."
        )
    if part.rollouts_per_shard * plan.rollout_bytes > _WARN_SHARD_BYTES:
        shard = size(part.rollouts_per_shard * plan.rollout_bytes)
        lines.append(f"Warning: a shard may reach {shard}, and a lost worker loses whole shards.")
    return lines


def _describe_reading(prompts: PromptSet) -> Iterator[str]:
    """What of the files was not planned, though nothing is wrong with it."""
    if prompts.num_distinct is not None:
        yield f"Limit: the first {len(prompts.prompts):,} of {prompts.num_distinct:,} records."
    yield from describe_left_behind(prompts.left_behind)


def _describe_foreign(prompts: PromptSet, config: RunConfig) -> Iterator[str]:
    """A warning where the bundled model is asked for what its small world does not hold."""
    method = config.method
    if method.model.name != DEFAULT_MODEL or method.backend == "fake":
        return
    beyond = [words for prompt in prompts.prompts if (words := words_beyond(prompt.text))]
    if beyond:
        yield (
            f"Warning: {len(beyond):,} of {counted(len(prompts.prompts), 'prompt')} speak of what "
            f"the world of {DEFAULT_MODEL}, the default model, does not hold, such as "
            f"{beyond[0][0]!r:.40}; for other pictures name another model: "
            "--model deepseek-ai/Janus-Pro-7B"
        )


def describe_left_behind(columns: Collection[str]) -> Iterator[str]:
    """One line about the columns that do not travel, if there are any."""
    if len(columns) == 1:
        yield f"Column {next(iter(columns))} stays behind: it holds bytes."
    elif columns:
        yield f"{len(columns)} columns stay behind, since they hold bytes: {', '.join(columns)}."
