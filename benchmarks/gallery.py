"""A gallery at scale: how long it takes to write, and to open, filter and sort in Chromium.

`python -m benchmarks.gallery [--toy] [--traces N] [--folder DIR]`: the fake backend with pictures
of 64 pixels, or with `--toy` the bundled model, grows one shard, which is then copied under the
other keys of the plan, with its pictures. Needs what `make test-browser` needs. Prints a table for
people and, last, one JSON line for machines. Times in the page are from the call to the next frame
after it; opening ends when the first page of cards, with its thumbnails, is drawn.
"""

import argparse
import resource
import shutil
import tempfile
import time
from pathlib import Path
from statistics import median
from uuid import uuid4

from benchmarks.harness import Rows, commit, show
from pipeline.engine.backends import open_backends
from pipeline.plan.configs import resolve
from pipeline.plan.planning import commit_plan, make_plan
from pipeline.plan.prompt_files import PromptSet
from pipeline.rollout.worker import Worker
from pipeline.scoring.find import find_scorer
from pipeline.scoring.sidecars import score_object
from pipeline.store.layout import traces_key
from pipeline.store.objects import Store
from pipeline.store.open import open_store
from pipeline.store.plans import read_plan_shard
from pipeline.store.runs import open_run
from pipeline.store.traces import ShardOrigin, TraceWriter, read_rows
from pipeline.toy.prompts import held_out_prompts
from pipeline.view.gallery.write import Gallery, write_gallery
from pipeline.view.runs import choose, view_run
from schemas import __version__
from schemas.json_values import JsonObject
from schemas.prompts import Prompt
from schemas.runs import Attempt, Grow, RunManifest

_ROLLOUTS, _SHARD = 4, 200
_REPEATS = 5
_FAKE: JsonObject = {"image_size": 64, "patch_size": 16, "num_codes": 512, "num_text_tokens": 40}
_OPEN = """async () => {
  const frame = () => new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve)));
  while (!document.querySelector(".card")) await frame();
  const sheets = new Set([...document.querySelectorAll(".card .picture i")].slice(0, 20)
    .map((sheet) => sheet.style.backgroundImage.slice(5, -2)));
  await Promise.all([...sheets].map((src) => {
    const image = new Image();
    image.src = src;
    return image.decode();
  }));
  await frame();
  return performance.now();
}"""
_TIMED = """async (act) => {
  const start = performance.now();
  const fire = (id, value, type) => {
    const field = document.getElementById(id);
    field.value = value;
    field.dispatchEvent(new Event(type, { bubbles: true }));
  };
  if (act === "filter") fire("text", "a", "input");
  if (act === "sort") fire("sort", "score|down", "change");
  await new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve)));
  return performance.now() - start;
}"""


def grow(url: str, num_traces: int, *, is_toy: bool) -> None:
    """A run with so many traces, of which one shard was grown and the others are its copies."""
    model: JsonObject = {"model": "toy"} if is_toy else {"backend": "fake", "fake": _FAKE}
    resolved = resolve({"method": {**model, "pictures": "all"}})
    prompts = _prompts(num_traces // _ROLLOUTS, is_toy=is_toy)
    plan = make_plan(
        prompts,
        resolved.config,
        resolved.facts,
        sources=["benchmark"],
        rollouts_per_record=_ROLLOUTS,
        rollouts_per_shard=_SHARD,
    )
    store = open_store(url)
    manifest = commit_plan(store, plan, prompts, resolved.config, resolved.facts)
    worker = Worker(store, manifest, open_backends(manifest.config), name="benchmark")
    worker.run_shard(Grow(attempt=Attempt(shard=0, number=1, attempt_id=uuid4().hex)))
    worker.close()
    with tempfile.TemporaryDirectory() as scratch:
        _copy(store, manifest, Path(scratch) / "shard.parquet")
    for source in (run := open_run(url)).objects:
        for name in ("critiques", "tokens", *(["toy"] if is_toy else [])):
            score_object(run.store, source, find_scorer(name))


def _prompts(number: int, *, is_toy: bool) -> PromptSet:
    rows = list(held_out_prompts(number, seed=5)) if is_toy else []
    texts = [row["prompt"] for row in rows] or [f"a cat on chair number {i}" for i in range(number)]
    prompts = [
        Prompt(
            text=text,
            metadata={"category": f"kind {line % 7}"}
            | ({"spec": rows[line]["spec"]} if rows else {}),
            source="benchmark",
            line=line + 1,
        )
        for line, text in enumerate(texts)
    ]
    return PromptSet(prompts=prompts, num_duplicates=0, rejects=[])


def _copy(store: Store, manifest: RunManifest, path: Path) -> None:
    """The rows of the first shard in all others, under the keys that are planned there."""
    rows = list(read_rows(store, 0))
    for shard in range(1, manifest.num_shards):
        origin = ShardOrigin(
            run_id=manifest.run_id,
            fingerprint=manifest.fingerprint,
            method=manifest.config.method,
            shard=shard,
            attempt=1,
            attempt_id=uuid4().hex,
            worker="benchmark",
            stack=rows[0]["stack"],
        )
        writer = TraceWriter(path, origin)
        keys = (
            (planned, key)
            for planned in read_plan_shard(store, manifest, shard)
            for key in planned.rollout_keys()
        )
        for row, (planned, (record_id, rollout)) in zip(rows, keys, strict=False):
            trace_id = f"{manifest.run_id}-{record_id}-{rollout}"
            new = {"record_id": record_id, "rollout_index": rollout, "trace_id": trace_id}
            writer.add_row({**row, **new, "prompt": planned.prompt})
        writer.close(__version__)
        store.put(traces_key(shard), path)


def write(url: str, out: Path) -> Rows:
    """Write the gallery, and say what that took."""
    run, start = view_run(url), time.perf_counter()
    gallery = Gallery(title="benchmark", runs=(run,), names=("benchmark",), chosen=choose([run]))
    write_gallery(gallery, open_store(str(out)))
    files = [path for path in out.rglob("*") if path.is_file()]
    return {
        "traces": len(gallery.chosen),
        "written in, s": round(time.perf_counter() - start, 1),
        "peak memory of the process, MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        // 1000,
        "files": len(files),
        "size, MB": round(sum(path.stat().st_size for path in files) / 1e6, 1),
    }


def look(out: Path) -> Rows:
    """Open the page several times, and filter and sort it."""
    from playwright.sync_api import sync_playwright

    times: dict[str, list[float]] = {"opens": [], "filters": [], "sorts": []}
    with sync_playwright() as driver:
        chromium = shutil.which("chromium")
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for _ in range(_REPEATS):
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            page.goto((out / "index.html").as_uri(), wait_until="commit")
            times["opens"].append(page.evaluate(_OPEN))
            times["filters"].append(page.evaluate(_TIMED, "filter"))
            times["sorts"].append(page.evaluate(_TIMED, "sort"))
            page.close()
        browser.close()
    return {
        f"{name} in, ms (median, worst of {_REPEATS})": f"{median(taken):.0f}, {max(taken):.0f}"
        for name, taken in times.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--toy", action="store_true")
    parser.add_argument("--traces", type=int, default=20_000)
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="coppice-") as scratch:
        folder = arguments.folder or Path(scratch)
        url = str(folder / "run")
        if not (folder / "run" / "run.json").exists():
            grow(url, arguments.traces, is_toy=arguments.toy)
        rows = write(url, folder / "out") | look(folder / "out")
    show({"model": "toy" if arguments.toy else "fake, 64 pixels"} | rows | {"commit": commit()})


if __name__ == "__main__":
    main()
