"""`python -m tests.recompute SET RUN... [--evaluation FILE ...]`: what of a set does not follow
from its runs and from the evaluation files, a line each.

Computed again are all decisions, rows, counts, and exports of conversations and rollouts. Not
computed again is the wording of questions; and what counts as one prompt is known of plain English
prompts alone, at the levels L0 and L1. What else a set has that is not computed again is said in a
line each.
"""

import argparse
import json
import math
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

import pyarrow.parquet as pq

from tests.recompute.decisions import Decision, decisions_of
from tests.recompute.exports import OF_GROUPS, OF_TEXT, wrong_exports
from tests.recompute.prompt_forms import UNKNOWN_LEVELS, EvaluationPrompts
from tests.recompute.reading import Row, read_run
from tests.recompute.rows import rows_of


def problems(made: Path, runs: list[Path], evaluation: list[Path] | None = None) -> Iterator[str]:
    """What is wrong with a set that is said to be made of these runs, without the prompts of these
    files.
    """
    manifest = json.loads((made / "manifest.json").read_text())
    recipe, digest = manifest["inputs"]["recipe"], manifest["inputs"]["recipe_digest"]
    told = {leak["record_id"]: leak["level"] for leak in _leaks(made)}
    left_out = EvaluationPrompts(evaluation or [], recipe["decontamination"].get("column"), told)
    yield from _differences("evaluation", manifest["inputs"]["evaluation"], left_out.digests)
    sources = [read_run(run, recipe["scorers"], recipe.get("judge")) for run in runs]
    decisions = decisions_of(sources, recipe, left_out)
    rows = rows_of(decisions, recipe, digest)
    yield from _wrong_decisions(made, decisions)
    yield from wrong_exports(made, manifest, rows, _exports(manifest))
    yield from _wrong_rows(made, manifest, rows)
    yield from _wrong_counts(made, decisions)


def not_computed_again(made: Path) -> Iterator[str]:
    """What of a set is believed, since nothing here computes it: a line each."""
    manifest = json.loads((made / "manifest.json").read_text())
    for name in sorted(set(_exports(manifest)).difference(OF_TEXT, OF_GROUPS)):
        yield f"not computed again: the export {name}"
    if any(leak["level"] in UNKNOWN_LEVELS for leak in _leaks(made)):
        yield "not computed again: leaks at L2 and L3"
    if (made / "guards.json").exists():
        yield "not computed again: guards.json"


def _exports(manifest: Row) -> list[str]:
    """Those of the recipe, and those that were added since."""
    return [*manifest["inputs"]["recipe"]["exports"], *manifest.get("exports", {})]


def _leaks(made: Path) -> list[Row]:
    leaks: list[Row] = json.loads((made / "leaks.json").read_text())
    return leaks


def _wrong_decisions(made: Path, decisions: list[Decision]) -> Iterator[str]:
    written = pq.read_table(made / "decisions.parquet").to_pylist()
    for row, decision in zip_longest(written, decisions):
        if row is None or decision is None:
            yield f"{len(written)} decisions, and {len(decisions)} follow"
            return
        expected = {
            "run_id": decision.run.run_id,
            "trace_id": decision.trace["trace_id"],
            "event": decision.event,
            "task": decision.task,
            "is_kept": not decision.reason,
            "reason": decision.reason or None,
            "value": None if math.isnan(decision.value) else decision.value,
            "split": "validation" if decision.is_validation else "train",
        }
        yield from _differences("decision", row, expected)


def _wrong_rows(made: Path, manifest: Row, rows: dict[str, list[Row]]) -> Iterator[str]:
    streams = {key: of for key, of in manifest["files"].items() if not key.startswith("exports/")}
    if streams.keys() != rows.keys():
        yield f"streams {sorted(streams)}, and {sorted(rows)} follow"
    for key in streams.keys() & rows.keys():
        written = [
            row for file in streams[key]["files"] for row in pq.read_table(made / file).to_pylist()
        ]
        if not len(written) == len(rows[key]) == streams[key]["num_rows"]:
            yield f"{key}: {len(written)} rows, and {len(rows[key])} follow"
        for row, expected in zip(written, rows[key], strict=False):
            answer = expected.pop("answer", None)
            del expected["order"]
            messages = row.pop("messages", None)
            if answer is not None:
                if messages[-1] != {"role": "assistant", "content": answer}:
                    yield f"{row['id']}: another answer than {answer!r}"
                if row["prompt"] not in " ".join(turn["content"] for turn in messages[:-1]):
                    yield f"{row['id']}: its question does not have its prompt"
            yield from _differences(key, row, expected)


def _wrong_counts(made: Path, decisions: list[Decision]) -> Iterator[str]:
    funnel = json.loads((made / "funnel.json").read_text())
    kept = [row for row in decisions if not row.reason]
    critiques = Counter(
        f"{'validation' if row.is_validation else 'train'} {row.of_event['verdict']}"
        for row in kept
        if row.role == "reflect"
    )
    removed = Counter(row.reason for row in decisions if row.reason)
    regions = Counter(row.task.rpartition("_")[2] for row in kept if row.event is not None)
    if kept and kept[0].task in ("group", "revision"):
        regions.clear()
    expected = {
        "num_rows": len(decisions),
        "num_rows_kept": len(kept),
        "removed": dict(removed),
        "kept_by_region": dict(regions),
    }
    yield from _differences("funnel", {name: funnel[name] for name in expected}, expected)
    told = {name: num for name, num in funnel["kept_by_verdict"].items() if num}
    yield from _differences("verdicts", told, dict(critiques))


def _differences(of: str, row: Row, expected: Row) -> Iterator[str]:
    for name in row.keys() | expected.keys():
        ours, theirs = row.get(name), expected.get(name)
        are_floats = isinstance(ours, float) and isinstance(theirs, float)
        if are_floats and math.isclose(ours, theirs, rel_tol=1e-6, abs_tol=1e-9):
            continue
        if ours != theirs:
            yield f"{of} {row.get('trace_id', '')} {name}: {ours!r}, expected {theirs!r}"[:300]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("set", type=Path)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--evaluation", type=Path, nargs="*", default=[])
    options = parser.parse_args()
    wrong = list(problems(options.set, options.runs, options.evaluation))
    believed = not_computed_again(options.set)
    sys.stdout.write("\n".join([*wrong, *believed, f"{len(wrong)} problems", ""]))
    sys.exit(bool(wrong))
