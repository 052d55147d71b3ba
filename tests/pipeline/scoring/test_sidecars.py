"""Sidecars: what stands in them, and that a job started again leaves no duplicate and no hole."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline.pictures import decode_picture
from pipeline.scoring import painting
from pipeline.scoring.find import find_scorer
from pipeline.scoring.inputs import digest_of_tokens
from pipeline.scoring.scorers import Score, ScoringInput, id_of
from pipeline.scoring.sidecars import score_object, score_together
from pipeline.store.local import LocalStore
from pipeline.store.objects import Source
from pipeline.store.open import open_store
from pipeline.store.runs import open_run, read_sidecar_notes, unscored
from pipeline.store.traces import read_rows
from schemas.config import Pictures
from schemas.errors import FatalFailure, InputError, StoreRefused
from schemas.runs import FOOTER_KEY
from schemas.scores import parse_scorer
from tests.support import Wrapped, all_rows, fake_config, fake_method, plan_run, run_all

LENGTHS = "tests.pipeline.scoring.test_sidecars:Lengths"


class Lengths:
    """A scorer from outside: how long a prompt is."""

    name, version = "lengths", "2"
    subjects = frozenset({"trace"})
    needs_pictures = False
    columns = {"value": "float32", "words": "float32"}  # noqa: RUF012

    def score(self, batch: Sequence[ScoringInput]) -> list[Score]:
        lengths = [float(len(scoring_input.prompt.split())) for scoring_input in batch]
        return [Score(value=None, parts={"words": length}) for length in lengths]


class Forgetful(Lengths):
    """A scorer with a bug."""

    def score(self, batch: Sequence[ScoringInput]) -> list[Score]:
        return super().score(batch)[1:]


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    """A run of 6 records in 2 shards."""
    store = open_store(str(tmp_path / "run"))
    config = fake_config(fake_method(pictures=Pictures.ALL))
    run_all(store, plan_run(store, 6, config, rollouts_per_shard=3))
    return store


def test_a_sidecar_has_a_row_for_the_trace_and_for_each_event_asked_about(store: LocalStore):
    run, scorer = open_run(store.url), find_scorer("tokens@1")
    for source in run.objects:
        assert score_object(store, source, scorer).is_new

    rows = [row for path in _sidecars(store, "tokens@1") for row in pq.read_table(path).to_pylist()]

    wanted = []
    for trace in all_rows(store, run.manifest):
        wanted.append((trace["trace_id"], None, digest_of_tokens(trace["codes"])))
        wanted += [
            (trace["trace_id"], event["index"], digest_of_tokens(event["codes"]))
            for event in trace["events"]
            if event["role"] == "draw"
        ]
    assert [(row["trace_id"], row["event"], row["tokens"]) for row in rows] == wanted
    footers, columns = read_sidecar_notes(run, id_of(scorer))
    assert sum(footer.num_rows for footer in footers) == len(rows)
    assert columns["entropy"] == "float"


class DiesAtPut(Wrapped):
    """The process dies at the n-th put."""

    num_left = 1

    def put_if_absent(self, key: str, source: Source) -> bool:
        if not self.num_left:
            raise StoreRefused("killed")
        self.num_left -= 1
        return self.store.put_if_absent(key, source)


def test_scorers_of_one_pass_leave_what_each_leaves_alone_even_if_it_is_killed(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
):
    decoded = []
    monkeypatch.setattr(
        painting, "decode_picture", lambda data: decoded.append(data) or decode_picture(data)
    )
    run, names = open_run(store.url), ("phash", "tokens", "toy", "picture_filter")
    source = run.objects[0]
    scorers = [find_scorer(name) for name in names]
    with pytest.raises(StoreRefused):
        score_together(DiesAtPut(store), source, scorers)
    num_pictures = sum(len(row["images"]) for row in read_rows(store, source.shard))

    assert [bool(_sidecars(store, f"{name}@1")) for name in names] == [True, False, False, False]
    assert len(decoded) == num_pictures  # once for all of them
    assert [scored.is_new for scored in score_together(store, source, scorers)] == [
        *(False, True, True, True)
    ]
    together = {name: _sidecars(store, f"{name}@1")[0].read_bytes() for name in names}
    for name in names:
        _sidecars(store, f"{name}@1")[0].unlink()
        score_object(store, source, find_scorer(name))
        assert _sidecars(store, f"{name}@1")[0].read_bytes() == together[name]


def test_what_is_scored_stays_and_only_the_rest_is_made(store: LocalStore):
    run, scorer = open_run(store.url), find_scorer("phash")
    first, second = run.objects
    score_object(store, first, scorer)
    before = store.read("scores/phash@1/shard-00000.parquet")

    assert unscored(run, id_of(scorer)) == [second]
    with pytest.raises(InputError, match=r"lacks scores of phash@1 for 1 of 2 shards.*coppice sco"):
        read_sidecar_notes(run, id_of(scorer))
    again = score_object(store, first, scorer)
    score_object(store, second, scorer)

    assert not again.is_new
    assert store.read("scores/phash@1/shard-00000.parquet") == before
    assert unscored(run, id_of(scorer)) == []


def test_a_scorer_from_outside_plugs_in_by_its_place(store: LocalStore):
    run, scorer = open_run(store.url), find_scorer(LENGTHS)
    score_object(store, run.objects[0], scorer)

    (path,) = _sidecars(store, "lengths@2")
    assert pq.read_table(path)["words"].to_pylist() == [3.0] * 3
    assert pq.read_table(path)["value"].null_count == 3


def test_a_scorer_that_gives_too_few_scores_is_stopped(store: LocalStore):
    with pytest.raises(FatalFailure, match="2 scores for 3 samples"):
        score_object(store, open_run(store.url).objects[0], Forgetful())


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("thought", "did you mean 'thoughts'"),
        ("toy@7", "version 1 here"),
        ("nowhere.at.all:Scorer", "cannot be loaded"),
        ("pathlib:Path", "is no scorer"),
    ],
)
def test_what_is_no_scorer_is_refused(name: str, complaint: str):
    with pytest.raises(InputError, match=complaint):
        find_scorer(name)


def test_a_scorer_is_pinned_by_name_and_version():
    assert str(parse_scorer("toy@1")) == "toy@1"
    with pytest.raises(InputError, match="such as toy@1"):
        parse_scorer("toy")


def test_a_foreign_schema_is_refused(store: LocalStore):
    path = store.root / "traces" / "shard-00001.parquet"
    note = pq.read_metadata(path).metadata[FOOTER_KEY]
    table = pq.read_table(path).drop_columns("codes")
    with pq.ParquetWriter(path, table.schema) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({FOOTER_KEY: note})

    with pytest.raises(InputError, match=r"another schema.*codes"):
        open_run(store.url)


def _sidecars(store: LocalStore, scorer: str) -> list[Path]:
    return sorted((store.root / "scores" / scorer).glob("*.parquet"))


class Odd(Lengths):
    """A scorer that gives what it was told to, of the second prompt alone."""

    def __init__(self, **given: object) -> None:
        self.given = given

    def score(self, batch: Sequence[ScoringInput]) -> list[Score]:
        return [
            Score(
                value=self.given.get("value", 0.5) if index == 1 else 0.5,  # type: ignore[arg-type]
                parts={"words": self.given.get("words", 1.0) if index == 1 else 1.0},  # type: ignore[dict-item]
            )
            for index, _ in enumerate(batch)
        ]


@pytest.mark.parametrize("column", ["value", "words"])
@pytest.mark.parametrize(
    "number",
    [float("nan"), float("inf"), float("-inf"), np.float32("nan"), np.float64("inf"), 1e39, -1e300],
    ids=repr,
)
def test_a_scorer_that_gives_no_number_is_named_with_the_trace(
    store: LocalStore, column: str, number: float
):
    run = open_run(store.url)
    trace_id = all_rows(store, run.manifest)[1]["trace_id"]

    with pytest.raises(
        InputError, match=rf"lengths@2 gave .* as {column} of trace {trace_id}, the"
    ):
        score_object(store, run.objects[0], Odd(**{column: number}))

    assert _sidecars(store, "lengths@2") == []


@pytest.mark.parametrize("number", [0, -0.0, 1e-45, 3.4e38, None, np.float32(0.25)])
def test_a_scorer_may_give_any_number_or_none(store: LocalStore, number: float | None):
    scored = score_object(store, open_run(store.url).objects[0], Odd(value=number))

    (path,) = _sidecars(store, "lengths@2")
    values = pq.read_table(path)["value"].to_pylist()
    assert scored.num_rows == 3
    assert values[1] == pytest.approx(number)
