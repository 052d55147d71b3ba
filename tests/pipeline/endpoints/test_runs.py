"""A run whose thoughts and critiques come from elsewhere, from its plan to its sets."""

import io
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest

from jobs.cli import main
from pipeline.engine.backends import open_backends
from pipeline.rollout.worker import Worker
from pipeline.store.objects import Store
from pipeline.store.open import open_store
from pipeline.store.status import read_usage
from pipeline.store.traces import RowsDigest, read_footer, read_rows
from schemas.config import Pictures, RunConfig
from schemas.runs import RunManifest, ShardEnd, ShardReport
from tests.stand_in_server import (
    MODEL,
    Asked,
    Reaction,
    StandIn,
    completion,
    error_body,
    good_answer,
    stand_in_server,
)
from tests.support import (
    all_rows,
    attempt_at,
    failure_of,
    fake_config,
    fake_method,
    plan_run,
)

KEY = "sk-swordfish-0123456789"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    monkeypatch.setattr("pipeline.endpoints.client._FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setenv("CRITIC_KEY", KEY)
    with stand_in_server() as running:
        running.key = KEY
        yield running


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "run"))


def config_of(
    server: StandIn, *, roles: Any = None, execution: Any = None, **method: Any
) -> RunConfig:
    endpoint = {
        "url": server.url,
        "api_key_env": "CRITIC_KEY",
        "patience_seconds": 0.3,
        "max_tries": 2,
        "input_price": 2.0,
        "output_price": 10.0,
    }
    return fake_config(
        fake_method(
            **{
                "endpoints": {"critic": {"model": MODEL}},
                "backends": roles or {"think": "critic", "reflect": "critic"},
                "pictures": Pictures.ALL,
            }
            | method
        ),
        endpoints={name: endpoint for name in method.get("endpoints", {"critic": ()})},
        **(execution or {}),
    )


@contextmanager
def at_work_on(store: Store, manifest: RunManifest) -> Iterator[Worker]:
    worker = Worker(store, manifest, open_backends(manifest.config), name="some-worker")
    try:
        yield worker
    finally:
        worker.close()


def grow(store: Store, manifest: RunManifest, *, attempt: int = 1) -> list[ShardReport]:
    with at_work_on(store, manifest) as worker:
        return [worker.run_shard(attempt_at(n, attempt)) for n in range(manifest.num_shards)]


def printed(*words: str) -> str:
    """What a command prints in this process."""
    out = io.StringIO()
    with redirect_stdout(out), redirect_stderr(out), pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code in (None, 0), out.getvalue()
    return out.getvalue()


def low_then_high(asked: Asked) -> Reaction:
    """A critic that wants the first drawing of each region again."""
    if asked.schema != "critique":
        return good_answer(asked)
    return Reaction(body=completion('{"score": 20, "improved_description": "a better hat"}'))


def test_thoughts_and_critiques_come_from_an_endpoint_and_drawings_do_not(
    server: StandIn, store: Store
):
    manifest = plan_run(store, 3, config_of(server))
    (report,) = grow(store, manifest)
    rows = all_rows(store, manifest)
    events = [event for row in rows for event in row["events"]]

    assert report.num_ok == 3
    assert {(event["role"], event["backend"]) for event in events} == {
        ("think", "critic"),
        ("reflect", "critic"),
        ("draw", "fake"),
    }
    critique = next(event for event in events if event["role"] == "reflect")
    assert (critique["score"], critique["verdict"]) == (95, "accept")
    assert critique["raw_text"].startswith("SCORE: 95\nIMPROVED_DESCRIPTION: ")
    assert critique["token_ids"] is None
    assert critique["prefix_ids"] is None
    assert "critic: stand-in 0.0.1 /m 512 tokens" in rows[0]["stack"]["device"]


def test_canvases_go_as_pictures_and_questions_say_whose_they_are(server: StandIn, store: Store):
    manifest = plan_run(store, 1, config_of(server))
    grow(store, manifest)
    asked = next(question for question in server.questions if question.schema == "critique")
    (picture, text) = asked.body["messages"][-1]["content"]

    assert picture["image_url"]["url"].startswith("data:image/png;base64,")
    assert "JSON" in text["text"]
    (row,) = all_rows(store, manifest)
    assert asked.headers["X-Request-Id"] == f"{row['record_id']}-0-reflect-0-0-0"


def test_a_critique_that_says_no_has_its_region_drawn_again(server: StandIn, store: Store):
    server.react = low_then_high
    manifest = plan_run(store, 1, config_of(server))
    grow(store, manifest)
    (row,) = all_rows(store, manifest)

    replaced = [event for event in row["events"] if event["superseded_by"] is not None]
    assert len(replaced) == len(row["region_stops"])
    assert "a better hat" in row["events"][-1]["text"]


def test_sampled_answers_have_seeds_and_likelihoods(server: StandIn, store: Store):
    def react(asked: Asked) -> Reaction:
        told = [{"token": "A", "logprob": -0.5}, {"token": " hat", "logprob": -1.0}]
        return Reaction(body=completion("A hat", logprobs={"content": told}))

    server.react = react
    config = config_of(server, roles={"think": "critic"}, sampling={"text_temperature": 0.8})
    manifest = plan_run(store, 1, config)
    grow(store, manifest)
    (row,) = all_rows(store, manifest)
    thought = row["events"][0]

    assert server.questions[0].body["seed"] == thought["seed"] % 2**63
    assert thought["logp_cond"] == [-0.5, -1.0]
    assert thought["logp_sample"] is None


@pytest.mark.parametrize(
    ("combine", "verdicts", "is_redrawn"),
    [
        ("first", (95, 20), False),
        ("first", (20, 95), True),
        ("mean", (95, 70), True),
        ("mean", (95, 89), False),
        ("all", (95, 20), True),
        ("all", (95, 91), False),
        ("all", (95, None), False),
    ],
)
def test_several_critics_judge_one_drawing_and_each_has_its_event(
    combine: str, verdicts: tuple[int | None, ...], is_redrawn: bool, server: StandIn, store: Store
):
    def react(asked: Asked) -> Reaction:
        if asked.schema != "critique":
            return good_answer(asked)
        score = verdicts[int(asked.headers["X-Request-Id"][-1])]
        better = '"improved_description": "a better hat"'
        return Reaction(body=completion(f'{{"score": {score}, {better}}}' if score else "Fine."))

    server.react = react
    both = {"critic": {"model": MODEL}, "other": {"model": MODEL}}
    reflection = {"combine": combine, "max_revisions": 1}
    config = config_of(
        server, roles={"reflect": ["critic", "other"]}, endpoints=both, reflection=reflection
    )
    manifest = plan_run(store, 1, config)
    grow(store, manifest)
    (row,) = all_rows(store, manifest)
    first = [event for event in row["events"] if event["role"] == "reflect"][:2]

    assert [event["backend"] for event in first] == ["critic", "other"]
    assert [event["score"] for event in first] == list(verdicts)
    assert any(event["superseded_by"] for event in row["events"]) is is_redrawn


def test_a_question_that_is_too_long_is_one_dead_row(server: StandIn, store: Store):
    def react(asked: Asked) -> Reaction:
        if "number 1" in asked.text:
            return Reaction(status=400, body=error_body(asked.text, param="input_tokens"))
        return good_answer(asked)

    server.react = react
    manifest = plan_run(store, 3, config_of(server))
    (report,) = grow(store, manifest)
    dead = [row for row in all_rows(store, manifest) if row["status"] == "dead"]

    assert (report.num_ok, report.num_dead) == (2, 1)
    assert [row["dead_reason"] for row in dead] == ["context"]
    assert "number 1" not in dead[0]["dead_message"]


def test_a_server_that_goes_away_gives_the_shard_back_and_another_try_makes_it(
    server: StandIn, store: Store
):
    manifest = plan_run(store, 2, config_of(server))
    with at_work_on(store, manifest) as worker:
        server.close()
        failure = failure_of(worker.run_shard(attempt_at(0)))
        again = StandIn(port=server.port)
        report = worker.run_shard(attempt_at(0, 2))
        again.close()

    assert (failure.kind, failure.reason) == ("infrastructure", "endpoint_away")
    assert (report.end, report.num_ok) == (ShardEnd.COMMITTED, 2)


def test_another_model_in_mid_run_stops_it(server: StandIn, store: Store):
    manifest = plan_run(store, 1, config_of(server))
    with at_work_on(store, manifest) as worker:
        server.react = lambda asked: Reaction(body=completion("Hi.", model="other"))
        failure = failure_of(worker.run_shard(attempt_at(0)))

    assert (failure.kind, failure.reason) == ("fatal", "endpoint_refused")


def test_no_rollout_is_too_slow_for_a_server_that_is_away(
    server: StandIn, store: Store, monkeypatch: pytest.MonkeyPatch
):
    """The time that a rollout may take, and a watchdog's, stand still meanwhile."""
    limits = {"rollout_timeout_seconds": 500, "no_progress_seconds": 500}
    manifest = plan_run(store, 1, config_of(server, execution=limits))
    loaded = open_backends(manifest.config)
    client = loaded.endpoints["critic"].client
    away_seconds = 0.0

    def answer_after_an_hour(asked: Asked) -> Reaction:
        nonlocal away_seconds
        away_seconds += 3600
        return good_answer(asked)

    now = time.monotonic
    clock = SimpleNamespace(monotonic=lambda: now() + away_seconds, time=time.time)
    monkeypatch.setattr("pipeline.rollout.model_thread.time", clock)
    monkeypatch.setattr(type(client), "away_seconds", property(lambda self: away_seconds))
    server.react = answer_after_an_hour
    worker = Worker(store, manifest, loaded, name="some-worker")
    report = worker.run_shard(attempt_at(0))
    worker.close()

    assert (report.end, report.num_ok) == (ShardEnd.COMMITTED, 1)


def test_what_answers_took_stands_in_footers_and_in_the_status(server: StandIn, store: Store):
    manifest = plan_run(store, 4, config_of(server), rollouts_per_shard=2)
    grow(store, manifest)
    usage = read_usage(store, manifest)["critic"]
    told = printed("status", store.url)

    assert usage.num_calls == len(server.questions) - sum(
        asked.schema == "probe" for asked in server.questions
    )
    assert usage.prompt_tokens == 11 * usage.num_calls
    assert read_footer(store, 0).endpoints["critic"].num_calls < usage.num_calls
    price = (2.0 * usage.prompt_tokens + 10.0 * usage.completion_tokens) / 1e6
    assert f"Endpoint critic: {usage.num_calls} answers with" in told
    assert f"price {price:,.4f}" in told
    assert '"num_calls"' in printed("status", store.url, "--json")


def test_what_an_endpoint_answered_is_verified_curated_and_shown(
    server: StandIn, store: Store, tmp_path: Path
):
    server.react = low_then_high
    manifest = plan_run(store, 4, config_of(server))
    grow(store, manifest)
    (tmp_path / "mine.toml").write_text('name = "mine"')
    out = str(tmp_path / "set")
    printed("verify", store.url, "--deep")
    printed("show", store.url)
    (row, *_) = all_rows(store, manifest)
    assert "a better hat" in printed("show", store.url, row["record_id"])
    printed("curate", store.url, out, "--recipe", str(tmp_path / "mine.toml"), "--export", "trl")

    thoughts = pq.read_table(f"{out}/sft/think_1").to_pylist()
    assert thoughts
    assert {row["input_ids"] for row in thoughts} == {None}
    assert {row["backend"] for row in thoughts} == {"critic"}
    assert all(row["messages"][-1]["content"] == "A red hat on a table." for row in thoughts)
    drawings = pq.read_table(f"{out}/sft/draw_1").to_pylist()
    assert all(row["input_ids"] for row in drawings)
    assert MODEL in Path(out, "README.md").read_text()
    assert pq.read_table(f"{out}/exports/trl").num_rows


def test_a_run_writes_and_says_nothing_of_its_key_and_logs_no_prompt(
    server: StandIn, store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.DEBUG)
    secret = "a very private otter"
    manifest = plan_run(store, [secret], config_of(server))
    grow(store, manifest)
    said = printed("status", store.url) + printed("verify", store.url)
    server.react = lambda asked: Reaction(status=500, body=error_body(f"{KEY} {asked.text}"))
    other = open_store(str(tmp_path / "other"))
    grow(other, plan_run(other, [secret], config_of(server)))
    server.react = lambda asked: Reaction(status=401, body=error_body(f"{KEY} {asked.text}"))
    third = open_store(str(tmp_path / "third"))
    grow(third, plan_run(third, [secret], config_of(server)))

    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 4
    assert not [path for path in files if KEY.encode() in path.read_bytes()]
    notes = [path for path in files if "_attempts" in path.parts]
    assert notes
    assert not [path for path in notes if secret.encode() in path.read_bytes()]
    assert KEY not in said + caplog.text
    assert secret not in said + caplog.text


def test_rows_of_a_run_with_one_endpoint_stay_readable_by_their_digest(
    server: StandIn, store: Store
):
    """Words stand in the digest where there are no tokens."""
    manifest = plan_run(store, 1, config_of(server))
    grow(store, manifest)
    before = read_footer(store, 0).digest
    rows = list(read_rows(store, 0))
    rows[0]["events"][0]["raw_text"] = "something else"
    digest = RowsDigest()
    digest.add(rows[0])

    assert digest.hexdigest() != before
