"""What version 0.1.0 made is resumed, rerun, verified, scored and curated to the same end.

`tests/data/v0.1` has a small run and two sets, and `make.sh`, which says how they were made. Every
test works on a copy with the command line alone, and compares with the original.
"""

import hashlib
import io
import json
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

MADE = Path(__file__).parent / "data" / "v0.1"
FINGERPRINT = "c1c95db8aea2eedb"

COMPLETE, COMPLETE_WITH_DEAD = 0, 4  # exit codes
SCORERS = ("toy", "thoughts", "critiques", "tokens", "phash", "prompt_filter")
SMALL_CACHE = "execution.cache_gigabytes=0.00073"  # in which the rollouts died

VARYING = {
    "started_at": "a time",
    "duration_seconds": "a time, of traces and of events",
    "attempts": "how often the shard was tried: one more if a process died under it",
    "attempt_id": "chosen by lot for every attempt",
    "worker": "host and process",
    "stack": "versions of packages, and the device",
}
"""Columns that say how and where a row came about, and not what it is."""

ROUNDING = {"logp_sample": 1e-3, "logp_cond": 1e-3}
"""Columns whose last bits depend on the processor and on torch, as tokens do not: with AVX2 or SSE
in place of AVX-512 they moved by up to 1.1e-4, on the machine that made the data by nothing."""

PIXEL_ROUNDING = 1
"""For the same reason: steps of 255. Ten values in 53 pictures moved by one."""

NUM_DEAD, NUM_DEAD_THEN = 2, 4
"""What a funnel tells of dead rollouts: version 0.1.0 counted those too that a rerun brought back.
"""

NULL_WAS = "disagrees"
"""What version 0.1.0 said of critiques of a drawing without a score: four of the set for SFT. Since
then they are `not_scored`. No other decision changed, and no row came or went."""

VARYING_IN_FOOTERS = {"attempt", "attempt_id", "rerun_id", "coppice_version"}
NEW_IN_PLANS, NEW_IN_MANIFESTS = {"digests"}, {"digests", "digest"}  # of files, since version 0.1
VARYING_IN_INPUTS = {"coppice", "pyarrow"}  # and so the version of a set, a digest of its inputs


@dataclass(frozen=True)
class Answer:
    """What a command printed, and how it ended."""

    text: str
    exit_code: int


class Copy:
    """A copy of the data, and the command line in it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self._monkeypatch = monkeypatch

    def coppice(self, *arguments: str) -> Answer:
        """Run a command in the folder of the copy, in this process."""
        from jobs.cli import main

        printed = io.StringIO()
        with self._monkeypatch.context() as patch, redirect_stdout(printed):
            patch.chdir(self.folder)
            patch.setattr(sys, "argv", ["coppice", *arguments])
            with pytest.raises(SystemExit) as ended:
                main()
        return Answer(printed.getvalue(), int(ended.value.code or 0))

    def forget(self, *names: str) -> None:
        """Remove files and folders."""
        for path in (self.folder / name for name in names):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Copy:
    shutil.copytree(MADE, tmp_path, dirs_exist_ok=True)
    return Copy(tmp_path, monkeypatch)


@pytest.fixture(scope="module")
def one_ray() -> Iterator[None]:
    """One Ray for all commands, which would each start one and end it. Without GPUs: only on a CPU
    does the engine make the same tokens everywhere.
    """
    import ray

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        patch.delenv("RAY_ADDRESS", raising=False)
        ray.init(
            address="local", num_cpus=2, num_gpus=0, include_dashboard=False, log_to_driver=False
        )
        end = ray.shutdown
        patch.setattr(ray, "init", lambda *_, **__: None)
        patch.setattr(ray, "shutdown", lambda *_, **__: None)
        try:
            yield
        finally:
            end()


# The run as it stands


def test_a_run_is_counted_as_it_was(copy: Copy):
    status = copy.coppice("status", "run", "--json")

    assert status.exit_code == COMPLETE_WITH_DEAD
    counts = json.loads(status.text)
    assert counts.pop("run_id") == read_json(MADE / "run/run.json")["run_id"]
    assert Path(counts.pop("url")) == copy.folder / "run"
    was = {
        "num_shards": 2,
        "num_committed": 2,
        "num_planned": 12,
        "num_ok": 10,
        "num_dead": 2,
        "num_missing": 0,
        "fingerprint": FINGERPRINT,
        "exit_code": COMPLETE_WITH_DEAD,
    }
    assert {name: counts[name] for name in was} == was


def test_a_run_is_whole_to_the_last_page(copy: Copy):
    found = copy.coppice("verify", "run", "--deep", "--json")

    assert found.exit_code == COMPLETE, found.text
    told = json.loads(found.text)
    assert told["findings"] == []
    assert (told["num_ok"], told["num_dead"], told["num_missing"]) == (10, 2, 0)


def test_equal_prompts_and_config_make_an_equal_plan_with_the_same_fingerprint(copy: Copy):
    planned = copy.coppice(
        *("plan", "prompts.jsonl", "anew", "--config", "run.toml"),
        *("--rollouts", "2", "--shard-rollouts", "6"),
    )

    assert planned.exit_code == COMPLETE, planned.text
    before, after = (read_json(copy.folder / run / "run.json") for run in ("run", "anew"))
    assert after["fingerprint"] == before["fingerprint"] == FINGERPRINT
    assert after["config"]["method"] == before["config"]["method"]
    assert after["geometry"] == before["geometry"]
    assert without(after["plan"], NEW_IN_PLANS) == before["plan"]
    assert names_below(copy.folder / "anew/plan") == names_below(MADE / "run/plan")
    for name in names_below(MADE / "run/plan"):
        assert_same_rows(copy.folder / "anew/plan" / name, MADE / "run/plan" / name)


def test_the_same_plan_again_changes_nothing_in_the_run(copy: Copy):
    planned = copy.coppice(
        *("plan", "prompts.jsonl", "run", "--config", "run.toml"),
        *("--rollouts", "2", "--shard-rollouts", "6"),
    )

    assert planned.exit_code == COMPLETE, planned.text
    assert digests_below(copy.folder / "run") == digests_below(MADE / "run")


def test_a_run_that_lacks_nothing_is_left_as_it_is(copy: Copy):
    ran = copy.coppice("run", "run")

    assert ran.exit_code == COMPLETE_WITH_DEAD, ran.text
    assert digests_below(copy.folder / "run") == digests_below(MADE / "run")


def test_what_a_rerun_would_try_are_the_rollouts_that_are_still_dead(copy: Copy):
    told = copy.coppice("rerun", "run", "--reason", "too_long", "--dry-run")

    assert told.exit_code == COMPLETE
    assert "2 dead rollouts to try again (shards 1)" in told.text
    dead = read_json(next((MADE / "run/_reruns").iterdir()))["keys"]["1"]
    back = keys_of(read_traces(MADE / "run", "shard-00001.s1.parquet"))
    in_vain = read_footer(MADE / "run", "shard-00001.s1.parquet")["in_vain"]
    assert sorted(map(tuple, dead)) == sorted([*back, *map(tuple, in_vain)])
    assert len(back) == len(in_vain) == 2


# Growing again what is taken away


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.usefixtures("one_ray")
def test_shards_that_are_gone_are_grown_again_with_equal_tokens_and_pictures(copy: Copy):
    copy.forget("run/traces/shard-00000.parquet", "run/traces/shard-00001.parquet")
    copy.forget("run/traces/shard-00001.s1.parquet")
    ran = copy.coppice("run", "run", "--set", SMALL_CACHE)

    assert ran.exit_code == COMPLETE_WITH_DEAD, ran.text
    assert names_below(copy.folder / "run/traces") == ["shard-00000.parquet", "shard-00001.parquet"]
    for name in ("shard-00000.parquet", "shard-00001.parquet"):
        assert_same_traces(copy.folder / "run", MADE / "run", name)
    assert copy.coppice("verify", "run", "--deep").exit_code == COMPLETE


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.usefixtures("one_ray")
def test_a_rerun_brings_the_same_rollouts_back_and_tries_the_same_ones_in_vain(copy: Copy):
    copy.forget("run/traces/shard-00001.s1.parquet", "run/_reruns")
    reran = copy.coppice("rerun", "run")

    assert reran.exit_code == COMPLETE_WITH_DEAD, reran.text
    assert_same_traces(copy.folder / "run", MADE / "run", "shard-00001.s1.parquet")
    for name in ("shard-00000.parquet", "shard-00001.parquet"):
        assert digest_of(copy.folder / "run/traces" / name) == digest_of(MADE / "run/traces" / name)
    assert copy.coppice("verify", "run", "--deep").exit_code == COMPLETE


# Scores and sets


@pytest.mark.ray
@pytest.mark.usefixtures("one_ray")
@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context")  # of its own settings
def test_traces_get_the_same_scores(copy: Copy):
    copy.forget("run/scores")
    scored = copy.coppice("score", "run", *(f"--scorer={name}" for name in SCORERS))

    assert scored.exit_code == COMPLETE, scored.text
    names = names_below(MADE / "run/scores")
    assert len(names) == len(SCORERS) * 3
    assert names_below(copy.folder / "run/scores") == names
    for name in names:
        assert_same_file(copy.folder / "run/scores" / name, MADE / "run/scores" / name)


@pytest.mark.parametrize("kind", ["sft", "grpo"])
def test_a_recipe_decides_alike_about_every_row(copy: Copy, kind: str):
    copy.forget("sets")
    dry = copy.coppice("curate", "run", f"sets/{kind}", "--recipe", f"{kind}.toml", "--dry-run")
    made = copy.coppice("curate", "run", f"sets/{kind}", "--recipe", f"{kind}.toml")

    assert dry.exit_code == made.exit_code == COMPLETE, dry.text + made.text
    told, (_, card) = funnel_of(made), read_card(copy.folder / "sets" / kind)
    assert "\n".join(told) in card
    assert funnel_of(dry) == told
    for name in ("leaks.json", "recipe.json"):
        assert_same_file(copy.folder / "sets" / kind / name, MADE / "sets" / kind / name)
    assert_same_decisions(copy.folder / "sets" / kind, MADE / "sets" / kind)
    assert_same_funnel(copy.folder / "sets" / kind, MADE / "sets" / kind)


def funnel_of(answer: Answer) -> list[str]:
    """The lines of the funnel, between those of progress and those about what was written."""
    lines = answer.text.splitlines()[:-1]
    first = next(index for index, line in enumerate(lines) if "came in" in line)
    is_about_files = re.compile(r"Export |\d+ of \d+ ")
    return [line for line in lines[first:] if not is_about_files.match(line)]


def funnel_in(text: str) -> list[str]:
    """The lines of a funnel that `coppice curate` printed, after those of its progress."""
    lines = text.splitlines()
    return lines[next(i for i, line in enumerate(lines) if " came in" in line) : -1]


@pytest.mark.parametrize("kind", ["sft", "grpo"])
def test_a_set_has_the_same_files_with_the_same_rows_and_digests(copy: Copy, kind: str):
    copy.forget("sets")
    made = copy.coppice("curate", "run", f"sets/{kind}", "--recipe", f"{kind}.toml")

    assert made.exit_code == COMPLETE, made.text
    assert_same_set(copy.folder / "sets" / kind, MADE / "sets" / kind)


def test_a_set_does_not_depend_on_where_its_run_lies(copy: Copy):
    copy.forget("sets")
    (copy.folder / "run").rename(copy.folder / "elsewhere")
    made = copy.coppice("curate", "elsewhere", "a-set", "--recipe", "sft.toml")

    assert made.exit_code == COMPLETE, made.text
    assert_same_set(copy.folder / "a-set", MADE / "sets/sft")


def test_exports_of_a_set_say_what_they_said_in_their_new_forms(copy: Copy):
    copy.forget("sets")
    for kind in ("grpo", "sft"):
        made = copy.coppice("curate", "run", f"sets/{kind}", "--recipe", f"{kind}.toml")
        assert made.exit_code == COMPLETE, made.text

    for split in ("train", "validation"):
        name = f"sft/exports/trl/{split}/part-00000.parquet"
        rows, known = (pq.read_table(at / "sets" / name) for at in (copy.folder, MADE))
        messages = [row["prompt"] + row["completion"] for row in rows.to_pylist()]
        assert messages == known["messages"].to_pylist()
        for images, others in zip(rows["images"], known["images"], strict=True):
            pictures = zip(images.as_py(), others.as_py(), strict=True)
            assert all((decode(a["bytes"]) == decode(b["bytes"])).all() for a, b in pictures)
        name = f"grpo/exports/verl-grpo/{split}/part-00000.parquet"
        rows, known = (pq.read_table(at / "sets" / name) for at in (copy.folder, MADE))
        for row, other in zip(rows.to_pylist(), known.to_pylist(), strict=True):
            assert (row["uid"], row["prompt_ids"]) == (other["uid"], other["prompt_ids"])
            num_canvas = row["response_mask"].count(0)
            assert row["response_ids"][num_canvas:] == other["response_ids"]
            assert row["reward_score"] == other["reward_score"]


def test_an_export_in_an_old_form_is_not_mixed_with_a_new_one(copy: Copy):
    refused = copy.coppice("export", "sets/sft", "--export", "trl")
    added = copy.coppice("export", "sets/sft", "--export", "trl-messages")

    assert refused.exit_code == 2
    assert added.exit_code == COMPLETE, added.text


# Comparing


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())


def names_below(folder: Path) -> list[str]:
    """The files in a folder and below it. Folders do not count: git keeps no empty ones."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    return sorted(path.relative_to(folder).as_posix() for path in paths)


def digest_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def digests_below(folder: Path) -> dict[str, str]:
    return {name: digest_of(folder / name) for name in names_below(folder)}


def read_traces(run: Path, name: str) -> list[dict[str, Any]]:
    """The rows of an object in the order of their keys: they stand in the order they ended in."""
    rows = pq.read_table(run / "traces" / name).to_pylist()
    return sorted(rows, key=lambda row: (row["record_id"], row["rollout_index"]))


def keys_of(rows: list[dict[str, Any]]) -> list[tuple[str, int]]:
    return [(row["record_id"], row["rollout_index"]) for row in rows]


def read_footer(run: Path, name: str) -> dict[str, Any]:
    """Who wrote an object, and the digest of the keys, states and tokens in it."""
    footer: dict[str, Any] = json.loads(
        pq.read_metadata(run / "traces" / name).metadata[b"coppice"]
    )
    footer["in_vain"].sort()
    return footer


def without(row: dict[str, Any], names: Any) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in names}


def assert_same_traces(ours: Path, theirs: Path, name: str) -> None:
    """An object of a run has the rows that it had, but for what varies by nature."""
    schemas = [pq.read_schema(run / "traces" / name) for run in (ours, theirs)]
    assert schemas[0].equals(schemas[1], check_metadata=True)
    footers = [without(read_footer(run, name), VARYING_IN_FOOTERS) for run in (ours, theirs)]
    assert footers[0] == footers[1]
    rows, others = read_traces(ours, name), read_traces(theirs, name)
    assert keys_of(rows) == keys_of(others)
    for row, other in zip(rows, others, strict=True):
        assert_same_pictures(row.pop("images"), other.pop("images"))
        for event, known in zip(row.pop("events"), other.pop("events"), strict=True):
            for column, tolerance in ROUNDING.items():
                mine, known_ones = event.pop(column), known.pop(column)
                assert (mine is None) == (known_ones is None)
                assert mine == pytest.approx(known_ones, rel=0, abs=tolerance)
            assert without(event, VARYING) == without(known, VARYING)
        assert without(row, VARYING) == without(other, VARYING)


def assert_same_pictures(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> None:
    assert [image["path"] for image in ours] == [image["path"] for image in theirs]
    for image, other in zip(ours, theirs, strict=True):
        mine, known = (decode(one["bytes"]) for one in (image, other))
        assert mine.shape == known.shape
        assert np.abs(mine - known).max() <= PIXEL_ROUNDING


def decode(picture: bytes) -> "np.ndarray[Any, np.dtype[np.int64]]":
    return np.asarray(Image.open(io.BytesIO(picture))).astype(np.int64)


def assert_same_rows(ours: Path, theirs: Path) -> None:
    """As `assert_same_table`, whatever a file says of itself: plan files say which they are now."""
    table, other = (pq.read_table(path).replace_schema_metadata(None) for path in (ours, theirs))
    assert table.equals(other), theirs.name


def assert_same_table(ours: Path, theirs: Path) -> None:
    """Equal rows in equal order, in columns of equal types."""
    table, other = pq.read_table(ours), pq.read_table(theirs)
    assert table.schema.equals(other.schema, check_metadata=True), theirs.name
    assert table.to_pylist() == other.to_pylist(), theirs.name


def assert_same_file(ours: Path, theirs: Path) -> None:
    """A file that follows from the traces alone is equal byte by byte, of Parquet files those that
    one pyarrow writes; of others, the notes that commands leave in them and all rows.
    """
    if theirs.suffix == ".parquet":
        assert_same_table(ours, theirs)
        notes, others = (pq.read_metadata(path) for path in (ours, theirs))
        assert notes.metadata == others.metadata
        if notes.created_by != others.created_by:
            return
    assert digest_of(ours) == digest_of(theirs), theirs.name


def read_card(folder: Path) -> tuple[dict[str, Any], str]:
    """What the front matter of a data card says, however it is laid out, and the text below it."""
    _, front, text = (folder / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(front), text


def without_exports(card: str) -> str:
    """A data card but for what its funnel counts, and for its exports."""
    sections = card.split("\n## ")
    kept = [text for text in sections if not text.startswith(("Funnel\n", "Exports\n"))]
    card = "\n## ".join(kept)
    return "\n".join(line for line in card.splitlines() if "`exports/" not in line)


def assert_same_decisions(ours: Path, theirs: Path) -> None:
    """But for the reason of what has no score."""
    decisions, known = (
        pq.read_table(folder / "decisions.parquet").to_pylist() for folder in (ours, theirs)
    )
    for decision in known:
        if decision["reason"] == NULL_WAS and decision["value"] is None:
            decision["reason"] = "not_scored"
    assert decisions == known


def assert_same_funnel(ours: Path, theirs: Path) -> None:
    """But for rollouts that a rerun brought back, the reason of what has no score, and the counts
    by region and verdict, which are new.
    """
    funnel, known = (read_json(folder / "funnel.json") for folder in (ours, theirs))
    assert (funnel.pop("num_dead"), known.pop("num_dead")) == (NUM_DEAD, NUM_DEAD_THEN)
    assert {funnel.pop("kept_by_region") is None, funnel.pop("kept_by_verdict") is None} == {False}
    for counts in (funnel["removed"], *funnel["by_task"].values()):
        if num := counts.pop("not_scored", 0):
            counts[NULL_WAS] = counts.get(NULL_WAS, 0) + num
    funnel.pop("exports", None)
    assert funnel == known


def assert_same_set(ours: Path, theirs: Path) -> None:
    """All files of a set, but for the versions of coppice and pyarrow that its manifest names."""
    names = [name for name in names_below(theirs) if not name.startswith("exports/")]
    mine = [name for name in names_below(ours) if not name.startswith("exports/")]
    assert sorted({*mine} - {"croissant.json"}) == names
    manifest, other = (read_json(folder / "manifest.json") for folder in (ours, theirs))
    version, known = manifest.pop("version"), other.pop("version")
    inputs, known_inputs = manifest.pop("inputs"), other.pop("inputs")
    assert without(inputs, VARYING_IN_INPUTS) == without(known_inputs, VARYING_IN_INPUTS)
    for note in (manifest, other):  # exports have new forms, and say so
        note.pop("exports", None)
        note["files"] = {k: of for k, of in note["files"].items() if not k.startswith("exports/")}
    assert without(manifest, NEW_IN_MANIFESTS) == other
    assert (version == known) == (inputs == known_inputs)
    front, card = read_card(ours)
    known_front, known_card = read_card(theirs)
    assert front == known_front
    assert without_exports(card.replace(version, known)) == without_exports(known_card)
    assert_same_decisions(ours, theirs)
    assert_same_funnel(ours, theirs)
    told_above = {"manifest.json", "README.md", "funnel.json", "decisions.parquet"}
    for name in names:
        if name not in told_above:
            assert_same_file(ours / name, theirs / name)
