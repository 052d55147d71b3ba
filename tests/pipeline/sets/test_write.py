"""Sets: the same bytes from the same inputs, every row accounted for, nothing that leaks."""

import json
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.select.parallel import in_processes
from pipeline.select.recipes import load_recipe, read_recipe
from pipeline.select.selection import Curation, open_curation
from pipeline.sets import units
from pipeline.sets.picks import SPLITS
from pipeline.sets.rows import read_positions
from pipeline.sets.write import write_set
from pipeline.store.layout import traces_key
from pipeline.store.objects import Source, Store
from pipeline.store.open import open_store
from pipeline.store.runs import open_run
from pipeline.store.traces import read_footer, read_rows
from schemas.errors import InputError, StoreRefused
from schemas.scores import SCORES_KEY
from tests.pipeline.conftest import score
from tests.support import Wrapped, plan_run, put_object, replace_object, run_all

ALL = 'name = "all"\nsplit = { validation = 0.5 }'


def curate(run: Store, recipe: str, out: Path, **settings: Any) -> Curation:
    """Curate by a shipped recipe, or by the text of one."""
    read = read_recipe(recipe, origin="test") if "=" in recipe else load_recipe(recipe)[0]
    spread = in_processes(settings.pop("num_workers", 1))
    curation = open_curation([open_run(run.url)], read, Path(), spread=spread, **settings)
    write_set(curation, open_store(str(out)), spread=spread)
    return curation


def files_in(out: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()
    }


def rows_in(out: Path, pattern: str = "sft/**/*.parquet") -> list[dict[str, Any]]:
    return [row for path in sorted(out.glob(pattern)) for row in pq.read_table(path).to_pylist()]


def test_a_set_is_the_same_to_the_byte_for_any_number_of_workers(toy_run: Store, tmp_path: Path):
    exports = '\nexports = ["trl", "webdataset", "nemo-curator"]'
    curate(toy_run, ALL + exports, tmp_path / "alone")
    curate(toy_run, ALL + exports, tmp_path / "shared", num_workers=2)
    files = files_in(tmp_path / "alone")

    assert files == files_in(tmp_path / "shared")
    assert {"manifest.json", "funnel.json", "decisions.parquet", "README.md"} <= files.keys()
    assert not [name for name, body in files.items() if str(tmp_path).encode() in body]
    assert not [name for name, body in files.items() if toy_run.url.encode() in body]


class Dying(Wrapped):
    """The process dies at the n-th put."""

    def __init__(self, store: Store, num_puts: int) -> None:
        super().__init__(store)
        self._left = num_puts

    def put(self, key: str, source: Source) -> None:
        if not self._left:
            raise StoreRefused("killed")
        self._left -= 1
        self.store.put(key, source)


@pytest.mark.parametrize("num_puts", [1, 4, 10, 14])
def test_a_killed_job_started_again_leaves_no_duplicate_and_no_hole(
    toy_run: Store, tmp_path: Path, num_puts: int
):
    undisturbed = curate(toy_run, ALL, tmp_path / "whole")
    out = open_store(str(tmp_path / "out"))
    with pytest.raises(StoreRefused):
        write_set(undisturbed, Dying(out, num_puts))

    assert not (tmp_path / "out" / "manifest.json").exists()
    write_set(undisturbed, out)
    assert files_in(tmp_path / "out") == files_in(tmp_path / "whole")


class Noting(Wrapped):
    """Keeps the keys that were put."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.keys: list[str] = []

    def put(self, key: str, source: Source) -> None:
        self.keys.append(key)
        self.store.put(key, source)


def test_a_job_after_a_killed_one_makes_only_the_units_that_were_not_done(
    fake_run: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(units, "_UNIT_BYTES", (1.0, 1.0))  # a unit a trace
    undisturbed = curate(fake_run, ALL, tmp_path / "whole")
    files = files_in(tmp_path / "whole")
    out = open_store(str(tmp_path / "out"))
    with pytest.raises(StoreRefused):
        write_set(undisturbed, Dying(out, 40))
    done = {entry.key.rpartition("/")[2][:5] for entry in out.list_folder("_units")}
    again = Noting(out)
    write_set(undisturbed, again)

    assert 0 < len(done) < 16
    numbers = {key.rpartition("-")[2][:5] for key in again.keys if key.startswith("sft/")}
    assert numbers == {f"{number:05d}" for number in range(16)} - done
    assert files_in(tmp_path / "out") == files
    assert {f"sft/draw_1/{split}-00000.parquet" in files for split in SPLITS} == {True, False}


def test_a_place_that_holds_something_else_is_refused(toy_run: Store, tmp_path: Path):
    curate(toy_run, ALL, tmp_path / "out")
    curate(toy_run, ALL, tmp_path / "out")  # the very same is no mistake
    with pytest.raises(InputError, match="holds another set"):
        curate(toy_run, ALL.replace("0.5", "0.1"), tmp_path / "out")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "todo.txt").write_text("buy milk")
    with pytest.raises(InputError, match="not empty"):
        curate(toy_run, ALL, tmp_path / "notes")


def test_a_finished_set_is_found_again_by_its_manifest(fake_run: Store, tmp_path: Path):
    recipe = read_recipe(f'{ALL}\nexports = ["trl"]', origin="test")
    curation = open_curation([open_run(fake_run.url)], recipe, tmp_path)
    out, said = open_store(str(tmp_path / "out")), []
    written = write_set(curation, out, say=said.append)
    files = {path for stream in written.files.values() for path in stream.files}

    assert not said
    assert write_set(curation, out, say=said.append) == written
    assert said == [
        f"This very set is there already. Whether it is whole: coppice verify {out.url}"
    ]
    assert files == {path for path in files_in(tmp_path / "out") if path.endswith("-00000.parquet")}


def test_every_row_that_could_have_been_has_one_decision(toy_run: Store, tmp_path: Path):
    funnel = curate(toy_run, "twig-50k-toy", tmp_path / "out").funnel
    decisions = pq.read_table(tmp_path / "out" / "decisions.parquet").to_pylist()
    rows = rows_in(tmp_path / "out")

    run = open_run(toy_run.url)
    traces = [row for shard in range(len(run.objects)) for row in read_rows(toy_run, shard)]
    possible = {
        (trace["trace_id"], event["index"])
        for trace in traces
        for event in trace["events"]
        if event["superseded_by"] is None
    }
    keys = [(decision["trace_id"], decision["event"]) for decision in decisions]
    assert len(keys) == len(set(keys))
    assert set(keys) == possible
    assert {key for key, decision in zip(keys, decisions, strict=True) if decision["is_kept"]} == {
        (row["trace_id"], row["event"]) for row in rows
    }
    assert all(decision["is_kept"] == (decision["reason"] is None) for decision in decisions)
    removed = Counter(decision["reason"] for decision in decisions if not decision["is_kept"])
    assert dict(removed) == funnel.removed
    assert funnel.num_rows - sum(removed.values()) == funnel.num_rows_kept == len(rows)


def test_the_shape_of_twig_50k_comes_out_of_a_toy_run(toy_run: Store, tmp_path: Path):
    curate(toy_run, "twig-50k-toy", tmp_path / "out")
    kinds = Counter(row["task"].partition("_")[0] for row in rows_in(tmp_path / "out"))

    unit = min(kinds.values()) / 16
    assert kinds["think"] == kinds["reflect"]
    assert abs(kinds["think"] - 17 * unit) < 2
    card = (tmp_path / "out" / "README.md").read_text()
    assert "config_name: draw_1" in card


def test_the_card_tells_where_prompts_come_from_as_far_as_it_is_known(
    toy_run: Store, tmp_path: Path
):
    curate(toy_run, "twig-50k-toy", tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    traces = [row for shard in range(4) for row in read_rows(toy_run, shard)]
    num_told = sum("triangle" in row["prompt"] for row in traces)

    assert 0 < num_told < len(traces)
    name = "`a set | of <b>rules</b>`"  # as code, and on one line
    assert f"  - {num_told} traces of prompts from {name} (revision: `v7`, licence: `MIT`)." in card
    rest = f"{len(traces) - num_told} traces of prompts from a source that is unknown"
    assert f"  - {rest} (revision: unknown, licence: unknown)." in card
    assert "- Prompts: `MIT`." in card
    assert "- Prompts: unknown, at least of some. Find out before you publish." in card


def test_prompts_are_split_and_never_rows(toy_run: Store, tmp_path: Path):
    curate(toy_run, ALL, tmp_path / "out")
    splits = [
        {row["record_id"] for row in rows_in(tmp_path / "out", f"sft/*/{split}-*.parquet")}
        for split in ("train", "validation")
    ]

    assert all(splits)
    assert not splits[0] & splits[1]


def test_a_smaller_mix_is_a_part_of_a_larger_one(toy_run: Store, tmp_path: Path):
    sizes = {}
    for num in (10, 20, 40):
        mix = f"{ALL}\n[mix]\nweights = {{ think = 1, draw = 1 }}\nmax_rows = {num}"
        curate(toy_run, mix, tmp_path / str(num))
        sizes[num] = {row["id"] for row in rows_in(tmp_path / str(num))}

    assert [len(ids) for ids in sizes.values()] == [10, 20, 40]
    assert sizes[10] < sizes[20] < sizes[40]


def test_a_mix_of_counts_is_exact_or_refused(toy_run: Store, tmp_path: Path):
    curate(toy_run, f"{ALL}\n[mix]\ncounts = {{ think_2 = 7, draw = 5 }}", tmp_path / "out")
    with pytest.raises(InputError, match="think_2 18"):
        curate(toy_run, f"{ALL}\n[mix]\ncounts = {{ think_2 = 19 }}", tmp_path / "much")

    tasks = Counter(row["task"] for row in rows_in(tmp_path / "out"))
    assert tasks["think_2"] == 7
    assert sum(tasks.values()) == 12
    assert not (tmp_path / "much").exists()


def test_prompts_of_an_evaluation_set_are_left_out(toy_run: Store, tmp_path: Path):
    prompts = sorted({row["prompt"] for row in read_rows(toy_run, 0)})
    (tmp_path / "val.txt").write_text(f"A photo of {prompts[0].upper()}!\n{prompts[1].title()}\n")
    curate(toy_run, ALL, tmp_path / "out", evaluation=[str(tmp_path / "val.txt")])

    assert not {row["prompt"] for row in rows_in(tmp_path / "out")} & set(prompts[:2])
    leaks = json.loads((tmp_path / "out" / "leaks.json").read_text())
    assert sorted(leak["level"] for leak in leaks) == ["L0", "L1"]


def test_alike_pictures_are_dropped_within_a_prompt_and_the_best_stay(
    toy_run: Store, tmp_path: Path
):
    rule = 'scorers = ["toy@1", "phash@1"]\n[per_prompt]\nkeep = 1\nby = "toy.value"'
    curate(toy_run, f"{ALL}\n{rule}\nmin_distance = 1", tmp_path / "out")
    kept = {(row["record_id"], row["trace_id"]) for row in rows_in(tmp_path / "out")}
    reasons = Counter(row["reason"] for row in rows_in(tmp_path / "out", "decisions.parquet"))

    scores: dict[str, dict[str, float]] = {}
    for path in sorted(Path(toy_run.url, "scores/toy@1").iterdir()):
        for row in pq.read_table(path).to_pylist():
            if row["event"] is None:
                record = row["trace_id"].split("-")[1]
                scores.setdefault(record, {})[row["trace_id"]] = row["value"]
    assert len(kept) == len(scores) == 6
    assert all(scores[record][trace] == max(scores[record].values()) for record, trace in kept)
    assert reasons["not_best"] + reasons["near_duplicate"] == 12 * 9


def test_groups_are_whole_and_carry_rewards_and_log_probabilities(toy_run: Store, tmp_path: Path):
    recipe = (
        'name = "g"\nkind = "grpo"\nscorers = ["tokens@1"]\n[groups]\nrewards = ["tokens.entropy"]'
    )
    curate(toy_run, recipe, tmp_path / "out")
    rows = rows_in(tmp_path / "out", "grpo/*.parquet")
    groups = Counter(row["group_id"] for row in rows)

    assert groups
    assert set(groups.values()) == {3}
    for row in rows:
        assert row["rewards"] == [row["reward"]]
        for segment in row["segments"]:
            assert len(segment["logp_sample"]) == len(segment["tokens"])
            assert segment["is_policy"]
        kept = [
            segment
            for segment in row["segments"]
            if segment["modality"] == "image" and segment["is_kept"]
        ]
        assert [code for segment in kept for code in segment["tokens"]] == row["codes"]
    group = next(iter(groups))
    assert sum(row["advantage"] for row in rows if row["group_id"] == group) == pytest.approx(
        0, abs=1e-3
    )


def test_greedy_text_is_refused_for_groups_unless_only_pictures_are_learned(
    fake_run: Store, tmp_path: Path
):
    score(fake_run, "tokens")
    recipe = (
        'name = "g"\nkind = "grpo"\nscorers = ["tokens@1"]\n[groups]\nrewards = ["tokens.entropy"]'
    )
    with pytest.raises(InputError, match=r"greedy text.*picture_only"):
        curate(fake_run, recipe, tmp_path / "out")
    curate(fake_run, f"{recipe}\npicture_only = true", tmp_path / "out")

    segments = [
        segment
        for row in rows_in(tmp_path / "out", "grpo/*.parquet")
        for segment in row["segments"]
    ]
    assert {segment["modality"] for segment in segments if segment["is_policy"]} == {"image"}


DPO = (
    'name = "dpo"\nkind = "preference"\nscorers = ["toy@1", "prompt_filter@1"]\n'
    '[[filters]]\ncolumn = "prompt_filter.value"\nmin = 1\n'
    '[pairs]\nby = "toy.value"\nmin_margin = 0.1'
)


def test_pairs_are_of_a_better_and_a_worse_drawing(toy_run: Store, tmp_path: Path):
    curate(toy_run, DPO, tmp_path / "out")
    rows = rows_in(tmp_path / "out", "preference/*.parquet")

    assert {row["task"] for row in rows} >= {"group"}
    for row in rows:
        assert row["chosen"]["score"] - row["rejected"]["score"] == pytest.approx(row["margin"])
        assert row["margin"] >= 0.1
        assert row["chosen"]["codes"] != row["rejected"]["codes"]
        assert len(row["images"]) == 2
        same_trace = row["chosen"]["trace_id"] == row["rejected"]["trace_id"]
        assert same_trace == (row["task"] == "revision")


def test_rows_of_a_supplement_count_like_those_of_its_shard(fake_run: Store, tmp_path: Path):
    before = curate(fake_run, ALL, tmp_path / "before").funnel
    footer = read_footer(fake_run, 3).model_copy(update={"shard": 0, "supplement": 1})
    put_object(fake_run, traces_key(0, 1), footer, list(read_rows(fake_run, 3)))
    (Path(fake_run.url) / traces_key(3)).unlink()
    score(fake_run, "tokens")
    after = curate(fake_run, f'{ALL}\nscorers = ["tokens@1"]', tmp_path / "after").funnel

    assert after == before
    assert [source.name for source in open_run(fake_run.url).objects][:2] == [
        *("shard-00000.parquet", "shard-00000.s1.parquet")
    ]
    rows = {name: rows_in(tmp_path / name) for name in ("before", "after")}
    assert {row["id"] for row in rows["before"]} == {row["id"] for row in rows["after"]}


def test_rows_are_read_back_from_anywhere_in_an_object(tmp_path: Path):
    store = open_store(str(tmp_path / "run"))
    run_all(store, plan_run(store, 80, rollouts_per_shard=80))
    wanted = [0, 31, 70, 79]  # none of them in the second batch of rows

    read = list(read_positions(store, "traces/shard-00000.parquet", wanted, ["prompt"]))

    prompts = [row["prompt"] for row in read_rows(store, 0)]
    assert [(position, row["prompt"]) for position, row in read] == [
        (position, prompts[position]) for position in wanted
    ]


def test_a_filter_on_words_and_one_that_keeps_nulls(toy_run: Store, tmp_path: Path):
    rule = '[[filters]]\ncolumn = "event.verdict"\nequals = "accept"\ntasks = ["reflect"]\n'
    filters = rule + '[[filters]]\ncolumn = "trace.category"\nequals = "other"\ntasks = ["draw"]'
    curate(toy_run, f"{ALL}\n{filters}", tmp_path / "out")
    rows = rows_in(tmp_path / "out")

    assert {row["task"].partition("_")[0] for row in rows} == {"think", "reflect"}
    answers = [row["messages"][-1]["content"] for row in rows if row["task"] == "reflect_1"]
    assert answers
    assert {row["category"] for row in rows} == {"toy"}


# Numbers that are none

NAN, INF = float("nan"), float("inf")
GROUPS = 'name = "g"\nkind = "grpo"\nscorers = ["tokens@1"]\n[groups]\nrewards = ["tokens.entropy"]'


def spoil_trace(column: str, value: float) -> Callable[[list[dict[str, Any]]], Any]:
    """Of the first trace of an object, put a value among the numbers of one column."""

    def spoil(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        drawing = next(event for event in rows[0]["events"] if event["role"] == "draw")
        if column.startswith("logp"):
            drawing[column][3] = value
        else:
            drawing[column] = value
        return rows

    return spoil


@pytest.mark.parametrize(
    ("column", "value"),
    [("logp_sample", NAN), ("logp_cond", INF), ("score", NAN), ("duration_seconds", -INF)],
)
def test_no_row_is_made_of_a_trace_with_numbers_that_are_none(
    fake_run: Store, tmp_path: Path, column: str, value: float
):
    replace_object(fake_run, 2, rows=spoil_trace(column, value))
    broken = next(read_rows(fake_run, 2))["trace_id"]

    curation = curate(fake_run, ALL, tmp_path / "out")

    rows = rows_in(tmp_path / "out")
    decisions = pq.read_table(tmp_path / "out" / "decisions.parquet").to_pylist()
    reasons = {decision["trace_id"]: decision["reason"] for decision in decisions}
    assert {trace for trace, reason in reasons.items() if reason} == {broken}
    assert reasons[broken] == "not_finite"
    assert len({row["trace_id"] for row in rows}) == 15
    assert broken not in {row["trace_id"] for row in rows}
    assert [trace for shard in curation.shards for trace in shard.broken] == [
        f"traces/shard-00002.parquet: trace {broken}, column events.{column}"
    ]


def test_a_group_with_a_broken_trace_is_no_group(fake_run: Store, tmp_path: Path):
    score(fake_run, "tokens")
    replace_object(fake_run, 0, rows=spoil_trace("logp_sample", NAN))

    recipe = f"{GROUPS}\npicture_only = true\ndrop_zero_variance = false"
    funnel = curate(fake_run, recipe, tmp_path / "out").funnel

    assert funnel.removed == {"not_finite": 1, "incomplete_group": 1}
    rows = rows_in(tmp_path / "out", "grpo/*.parquet")
    assert len(rows) == 14
    assert all(math.isfinite(row["advantage"]) for row in rows)


def spoil_scores(run: Store, name: str, column: str, value: float) -> str:
    """Put a value into the first row of a sidecar; its trace."""
    path = Path(run.url) / "scores" / name
    note, table = pq.read_metadata(path).metadata[SCORES_KEY], pq.read_table(path)
    rows = table.to_pylist()
    rows[0][column] = value
    with pq.ParquetWriter(path, table.schema) as writer:
        writer.write_table(pa.Table.from_pylist(rows, schema=table.schema))
        writer.add_key_value_metadata({SCORES_KEY: note})
    return str(rows[0]["trace_id"])


@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_scores_that_are_none_are_refused_with_their_place(
    fake_run: Store, tmp_path: Path, value: float
):
    score(fake_run, "tokens")
    trace = spoil_scores(fake_run, "tokens@1/shard-00001.parquet", "entropy", value)
    recipe = f"{GROUPS}\npicture_only = true"

    place = rf"tokens@1/shard-00001.parquet has 1 scores in column entropy .* trace {trace}, event"
    with pytest.raises(InputError, match=place):
        curate(fake_run, recipe, tmp_path / "out")
    assert not list(tmp_path.glob("out/**/*.parquet"))


def test_scores_that_no_recipe_goes_by_may_be_what_they_are(fake_run: Store, tmp_path: Path):
    score(fake_run, "tokens")
    spoil_scores(fake_run, "tokens@1/shard-00001.parquet", "entropy", NAN)

    funnel = curate(fake_run, f'{ALL}\nscorers = ["tokens@1"]', tmp_path / "out").funnel

    assert not funnel.removed


def test_a_reward_too_large_for_its_column_is_refused(fake_run: Store, tmp_path: Path):
    score(fake_run, "tokens")
    for value, shard in ((3e38, 0), (3e38, 1), (3e38, 2), (3e38, 3)):
        spoil_scores(fake_run, f"tokens@1/shard-0000{shard}.parquet", "entropy", value)
    recipe = f'{GROUPS}\naggregate = "sum"\npicture_only = true'.replace(
        '["tokens.entropy"]', '["tokens.entropy", "tokens.entropy"]'
    )

    with pytest.raises(InputError, match=r"row .* of grpo/train would have a number in"):
        curate(fake_run, f"{recipe}\n[split]\nvalidation = 0.0", tmp_path / "out")
