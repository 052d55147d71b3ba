"""Curating at scale: time and peak memory on synthetic traces, and how fast thresholds replay.

`python -m benchmarks.curate [--traces N ...] [--workers N] [--million] [--pictures] [--exports]`:
the fake backend grows one shard of real traces, which is then copied under other keys, with its
scores. Shards have 1,000 traces; with `--pictures` they have 256, as `coppice plan` cuts them, and
a trace keeps all its canvases, 384 pixels wide, which rows hold that look at them. With `--exports`
nothing is left out, and all rows are written in every trainer's form as well. `--kind preference`
makes pairs of rollouts, `--kind grpo` groups. Prints a table for people and, last, one JSON line
for machines. Memory is that of all processes together, sampled: what they share is counted once
(PSS).
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.harness import Rows, commit, show
from pipeline.engine.backends import open_backends
from pipeline.plan.models import fake_facts
from pipeline.plan.packs import load_pack
from pipeline.plan.planning import commit_plan, make_plan
from pipeline.plan.prompt_files import PromptSet
from pipeline.rollout.worker import Worker
from pipeline.scoring.find import find_scorer
from pipeline.scoring.scorers import id_of
from pipeline.scoring.sidecars import score_object
from pipeline.sets.exports import exports_of
from pipeline.store.layout import sidecar_key
from pipeline.store.open import open_store
from pipeline.store.runs import open_run
from schemas.config import FakeConfig, MethodConfig, PackConfig, Pictures, RunConfig
from schemas.prompts import Prompt
from schemas.recipes import SetKind
from schemas.runs import FOOTER_KEY, Attempt, Grow, ShardFooter
from schemas.scores import SCORES_KEY, ScoresFooter

_ROLLOUTS = 4
_SHARD, _SHARD_WITH_PICTURES = 1000, 256  # traces
_SCORERS = ("tokens", "thoughts", "critiques")
_SAMPLE_SECONDS = 0.2
_RECIPE = """
name = "benchmark"
pictures = "{PICTURES}"
scorers = ["tokens@1", "thoughts@1", "critiques@1"]
filters = [
    { column = "tokens.entropy", min = {ENTROPY} },
    { column = "thoughts.novelty", of = "event", min = 0.1, tasks = ["think"], null = "keep" },
    { column = "critiques.value", of = "event", min = 1, tasks = ["reflect"] },
]
agreement = { by = "tokens.entropy", accept_min = 0, revise_max = 9, balance = true }
per_prompt = { keep = 3, by = "tokens.entropy" }
mix = { weights = { think = 17, reflect = 17, draw = 16 }, max_rows = 50000 }
"""

_EVERYTHING = """
name = "benchmark"
pictures = "{PICTURES}"
exports = {EXPORTS}
scorers = ["tokens@1"]
filters = [{ column = "tokens.entropy", min = {ENTROPY} }]
"""


_COMPARING = """
name = "benchmark"
kind = "{KIND}"
pictures = "{PICTURES}"
scorers = ["tokens@1"]
filters = [{ column = "tokens.entropy", min = {ENTROPY} }]
"""
_COMPARED = {  # what else a recipe of pairs, or of groups, says
    "preference": 'pairs = { by = "tokens.entropy", min_margin = 0.0001 }\n',
    "grpo": 'groups = { rewards = ["tokens.entropy"], picture_only = true }\n',
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--traces", type=int, nargs="+", default=[10_000, 50_000, 100_000])
    parser.add_argument("--million", action="store_true", help="1,000,000 traces as well")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--pictures", action="store_true")
    parser.add_argument("--exports", action="store_true")
    parser.add_argument("--kind", choices=SetKind, type=SetKind, default=SetKind.SFT)
    options = parser.parse_args()
    rows: Rows = {
        "workers": options.workers,
        "pictures": options.pictures,
        "exports": options.exports,
        "kind": options.kind,
        "cpus": os.cpu_count(),
        "commit": commit(),
    }
    exports = exports_of(SetKind.SFT)
    recipe = _EVERYTHING if options.exports else _RECIPE
    if options.kind is not SetKind.SFT:
        recipe = _COMPARING.replace("{KIND}", options.kind) + _COMPARED[options.kind]
    recipe = recipe.replace("{PICTURES}", "required" if options.pictures else "tokens")
    recipe = recipe.replace("{EXPORTS}", json.dumps(exports))
    size = _SHARD_WITH_PICTURES if options.pictures else _SHARD
    with tempfile.TemporaryDirectory(prefix="coppice-bench-") as scratch:
        template = grow_template(Path(scratch) / "template", size, with_pictures=options.pictures)
        for number in [*options.traces, *([1_000_000] if options.million else [])]:
            run = Path(scratch) / f"run-{number}"
            copy_shards(template, run, number // size)
            rows |= measure(run, Path(scratch), number, options.workers, recipe)
            shutil.rmtree(run)
    show(rows)


def measure(run: Path, scratch: Path, number: int, workers: int, recipe: str) -> Rows:
    """Curate, and then decide anew with another threshold, each as a user would."""
    recipes = [scratch / "first.toml", scratch / "second.toml"]
    for path, entropy in zip(recipes, ("1", "3.9"), strict=True):
        path.write_text(recipe.replace("{ENTROPY}", entropy))
    common = [str(run), str(scratch / f"out-{number}"), "--workers", str(workers), "--recipe"]
    rows: Rows = {}
    for name, more in {
        "curate": [str(recipes[0])],
        "replay": [str(recipes[1]), "--dry-run"],
    }.items():
        seconds, cpu_seconds, peak_bytes = _timed([*common, *more])
        rows[f"{number} traces: {name}, seconds"] = round(seconds, 1)
        rows[f"{number} traces: {name}, CPU seconds"] = round(cpu_seconds, 1)
        rows[f"{number} traces: {name}, peak megabytes"] = round(peak_bytes / 1e6)
        print(list(rows.items())[-3:], file=sys.stderr, flush=True)
    return rows


def grow_template(folder: Path, size: int, *, with_pictures: bool) -> Path:
    """A run of one shard with so many traces, scored."""
    store = open_store(str(folder))
    small = FakeConfig(image_size=48, patch_size=8, num_codes=260, num_text_tokens=16)
    fake = FakeConfig() if with_pictures else small
    facts = fake_facts(fake)
    pack = PackConfig(name="default", digest=load_pack("default").digest)
    pictures = Pictures.ALL if with_pictures else Pictures.NONE
    method = MethodConfig(
        model=facts.model, pack=pack, backend="fake", fake=fake, pictures=pictures
    )
    config = RunConfig(method=method)
    texts = (f"a photograph of a red scene with {n} cats" for n in range(size // _ROLLOUTS))
    given = PromptSet(
        prompts=[
            Prompt(text=text, metadata={}, source="prompts.txt", line=line)
            for line, text in enumerate(texts, start=1)
        ],
        num_duplicates=0,
        rejects=[],
    )
    plan = make_plan(
        given,
        config,
        facts,
        sources=["prompts.txt"],
        rollouts_per_record=_ROLLOUTS,
        rollouts_per_shard=size,
    )
    manifest = commit_plan(store, plan, given, config, facts)
    worker = Worker(store, manifest, open_backends(config), name="benchmark")
    worker.run_shard(Grow(attempt=Attempt(shard=0, number=1, attempt_id=uuid4().hex)))
    worker.close()
    run = open_run(store.url)
    for name in _SCORERS:
        score_object(store, run.objects[0], find_scorer(name))
    return folder


def copy_shards(template: Path, run: Path, num_shards: int) -> None:
    """A run of so many shards: the template's, under other keys."""
    (run / "traces").mkdir(parents=True)
    (run / "run.json").write_bytes((template / "run.json").read_bytes())
    source = template / "traces" / "shard-00000.parquet"
    traces = pq.read_table(source)
    rows_a_group = pq.read_metadata(source).row_group(0).num_rows
    footer = ShardFooter.model_validate_json(pq.read_metadata(source).metadata[FOOTER_KEY])
    sidecars = {
        name: pq.read_table(template / sidecar_key(source.name, id_of(find_scorer(name))))
        for name in _SCORERS
    }
    for shard in range(num_shards):
        digest = sha256(f"{footer.digest}{shard}".encode()).hexdigest()
        target = f"shard-{shard:05d}.parquet"
        note = footer.model_copy(update={"shard": shard, "digest": digest})
        ids = traces["record_id"].to_pylist()
        new_ids = {
            record_id: sha256(f"{record_id}{shard}".encode()).hexdigest()[:16]
            for record_id in set(ids)
        }
        records = pa.array([new_ids[record_id] for record_id in ids])
        names = _trace_ids(footer.run_id, records, traces["rollout_index"])
        columns = {"record_id": records, "trace_id": names}
        footer_note = {FOOTER_KEY: note.model_dump_json()}
        _write(run / "traces" / target, traces, columns, footer_note, rows_a_group)
        renamed = dict(zip(traces["trace_id"].to_pylist(), names.to_pylist(), strict=True))
        for name, table in sidecars.items():
            scorer = id_of(find_scorer(name))
            path = run / sidecar_key(target, scorer)
            path.parent.mkdir(parents=True, exist_ok=True)
            scores_note = ScoresFooter(
                scorer=scorer,
                source=target,
                source_digest=digest,
                num_rows=table.num_rows,
                digest=digest,
            )
            own = pa.array([renamed[trace_id] for trace_id in table["trace_id"].to_pylist()])
            _write(path, table, {"trace_id": own}, {SCORES_KEY: scores_note.model_dump_json()})


def _trace_ids(run_id: str, records: pa.Array, rollouts: pa.ChunkedArray) -> pa.Array:
    indices = rollouts.combine_chunks().cast(pa.string())
    return pc.binary_join_element_wise(run_id, records, indices, "-")


def _write(
    path: Path,
    table: pa.Table,
    columns: dict[str, pa.Array],
    note: dict[bytes, str],
    rows_a_group: int | None = None,
) -> None:
    for name, column in columns.items():
        index = table.schema.get_field_index(name)
        table = table.set_column(index, table.schema.field(name), column)
    with pq.ParquetWriter(path, table.schema, compression="zstd") as writer:
        writer.write_table(table, row_group_size=rows_a_group)
        writer.add_key_value_metadata({key: text.encode() for key, text in note.items()})


def _timed(arguments: list[str]) -> tuple[float, float, int]:
    """Seconds of one `coppice curate`, those that its processes computed, and its peak memory in
    bytes.
    """
    started, cpu = time.monotonic(), _cpu_seconds()
    process = subprocess.Popen([sys.executable, "-m", "jobs.cli", "curate", *arguments])
    peak = 0
    while process.poll() is None:
        time.sleep(_SAMPLE_SECONDS)
        peak = max(peak, sum(map(_own_bytes, _family(process.pid))))
    if process.returncode:
        raise SystemExit(f"coppice curate ended with {process.returncode}")
    return time.monotonic() - started, _cpu_seconds() - cpu, peak


def _cpu_seconds() -> float:
    """Of all processes that were started here and have ended, and of those that they started."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _family(pid: int) -> Iterator[int]:
    """A process and its descendants."""
    yield pid
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = path.read_text().split()
        except OSError:  # it has ended meanwhile
            continue
        for child in children:
            yield from _family(int(child))


def _own_bytes(pid: int) -> int:
    """The memory of a process, what it shares with n others counted for one n-th; 0: it ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


if __name__ == "__main__":
    main()
