"""Runs whose thinker and critic is a real vLLM: the toy draws, a server's death costs nothing."""

import signal
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from jobs.cluster.serving.keeper import Keeper, Phase
from jobs.commands.endpoints.caption import CaptionRequest, caption
from jobs.commands.terminal import Terminal
from jobs.commands.verify import verify_run
from pipeline.engine.backends import open_backends
from pipeline.plan.configs import resolve
from pipeline.plan.planning import commit_plan, make_plan
from pipeline.rollout.worker import Worker
from pipeline.store.objects import Store
from pipeline.store.open import open_store
from pipeline.store.traces import try_read_footer
from schemas.endpoints import ServeConfig
from schemas.errors import ExitCode
from schemas.runs import RunManifest, ShardEnd, ShardReport
from tests.support import all_rows, attempt_at, prompt_set
from tests.vllm.conftest import kept, port_of, signal_group, until
from tests.vllm.models import leaning

SCENES = ("a red circle under a blue sky", "a green square on grass", "two black stars", "a cross")


@pytest.fixture(scope="module")
def server(
    serve: ServeConfig, picture_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Keeper]:
    """A model that sees pictures, and is started again when it dies."""
    with kept(serve, picture_model, tmp_path_factory.mktemp("logs")) as keeper:
        yield keeper


def planned(folder: Path, url: str, model: Path, **execution: Any) -> tuple[Store, RunManifest]:
    """A run of the toy whose thoughts and critiques are an endpoint's."""
    teacher = {
        "model": str(model),
        "max_tokens": 200,
        "temperature": 1.0,
        "extra": {"logit_bias": leaning(model)},
    }
    tables = {
        "method": {
            "model": "toy",
            "backends": {"think": "teacher", "reflect": "teacher"},
            "endpoints": {"teacher": teacher},
        },
        "execution": {
            "store_patience_seconds": 0,
            "endpoints": {"teacher": {"url": url, **execution}},
        },
    }
    resolved = resolve(tables)
    prompts = prompt_set(SCENES)
    plan = make_plan(prompts, resolved.config, resolved.facts, sources=["p"], rollouts_per_record=2)
    store = open_store(str(folder / "run"))
    return store, commit_plan(store, plan, prompts, resolved.config, resolved.facts)


@contextmanager
def growing(store: Store, manifest: RunManifest) -> Iterator["Future[ShardReport]"]:
    """The only shard of a run, at work on a thread."""
    worker = Worker(store, manifest, open_backends(manifest.config), name="worker")
    try:
        with ThreadPoolExecutor(1) as pool:
            yield pool.submit(worker.run_shard, attempt_at(0, 2))
    finally:
        worker.close()


def num_answered(url: str) -> int:
    """Requests that the server has answered since it began."""
    with urllib.request.urlopen(url.removesuffix("/v1") + "/metrics", timeout=5) as response:
        lines = response.read().decode().splitlines()
    return int(sum(float(x.split()[-1]) for x in lines if x.startswith("vllm:request_success_to")))


def check_whole(store: Store, manifest: RunManifest) -> list[dict[str, Any]]:
    """Every key once, and the run whole to the last page. Its rows."""
    rows = all_rows(store, manifest)
    keys = [(row["record_id"], row["rollout_index"]) for row in rows]
    assert len(set(keys)) == len(keys) == manifest.num_rollouts == 8
    said = StringIO()
    code = verify_run(store.url, Terminal(said), is_deep=True, as_json=False)
    assert code is ExitCode.COMPLETE, said.getvalue()
    return rows


def test_a_served_model_thinks_and_critiques_what_the_toy_draws(
    server: Keeper, picture_model: Path, tmp_path: Path
):
    store, manifest = planned(tmp_path, server.status().url, picture_model)
    with growing(store, manifest) as report:
        assert report.result().end is ShardEnd.COMMITTED
    rows = check_whole(store, manifest)

    assert {row["status"] for row in rows} == {"ok"}
    assert "vllm" in rows[0]["stack"]["device"] or "0.32" in rows[0]["stack"]["device"]
    events = [event for row in rows for event in row["events"]]
    said = [event for event in events if event["role"] != "draw"]
    assert {event["backend"] for event in said} == {"teacher"}
    assert {event["backend"] for event in events if event["role"] == "draw"} == {"engine"}
    assert all(event["token_ids"] is None for event in said)
    critiques = [event for event in events if event["role"] == "reflect"]
    assert len(critiques) == 24
    # A schema binds a random model, too: what it says is noise, and a score.
    assert sum(event["score"] is not None for event in critiques) > 8


def test_a_server_killed_in_mid_run_is_waited_for_and_nothing_is_lost_or_doubled(
    server: Keeper, picture_model: Path, tmp_path: Path
):
    url, num_before = server.status().url, server.status().num_restarts
    store, manifest = planned(tmp_path, url, picture_model, concurrency=2)
    begun = num_answered(url)
    with growing(store, manifest) as report:
        until(lambda: num_answered(url) > begun + 6, 200)
        signal_group(url, signal.SIGKILL)
        assert report.result(900).end is ShardEnd.COMMITTED

    assert server.status().num_restarts == num_before + 1
    assert server.status().url == url
    rows = check_whole(store, manifest)
    assert {row["status"] for row in rows} == {"ok"}


def test_a_server_that_stops_for_a_while_costs_a_while(
    server: Keeper, picture_model: Path, tmp_path: Path
):
    url = server.status().url
    limits = {"concurrency": 2, "request_timeout_seconds": 2.0, "max_tries": 50}
    store, manifest = planned(tmp_path, url, picture_model, **limits)
    begun = num_answered(url)
    with growing(store, manifest) as report:
        until(lambda: num_answered(url) > begun + 6, 200)
        signal_group(url, signal.SIGSTOP)
        threading.Timer(8.0, signal_group, (url, signal.SIGCONT)).start()
        assert report.result(900).end is ShardEnd.COMMITTED

    rows = check_whole(store, manifest)
    assert {row["status"] for row in rows} == {"ok"}


def test_a_server_that_stays_away_ends_the_shard_which_is_made_when_it_is_back(
    serve: ServeConfig, picture_model: Path, tmp_path: Path
):
    with kept(serve, picture_model, tmp_path / "first") as server:
        url = server.status().url
        store, manifest = planned(tmp_path, url, picture_model, concurrency=2, patience_seconds=2)
        begun = num_answered(url)
        with growing(store, manifest) as report:
            until(lambda: num_answered(url) > begun + 6, 200)
            server.end()
            failed = report.result(300)
    assert failed.end is ShardEnd.FAILED
    assert failed.failure is not None
    assert "teacher" in failed.failure.message
    assert try_read_footer(store, 0) is None

    with (
        kept(serve, picture_model, tmp_path / "second", port=port_of(url)) as server,
        growing(store, manifest) as report,
    ):
        assert server.status().phase is Phase.ANSWERING
        assert report.result(900).end is ShardEnd.COMMITTED
    check_whole(store, manifest)


def test_a_text_model_thinks_alone(serve: ServeConfig, text_model: Path, tmp_path: Path):
    prompts, out = tmp_path / "prompts.txt", tmp_path / "thoughts.jsonl"
    prompts.write_text("\n".join(SCENES))
    bias = ", ".join(f"{token} = {value}" for token, value in leaning(text_model).items())
    with kept(serve, text_model, tmp_path) as server:
        config = tmp_path / "teacher.toml"
        config.write_text(
            f'[method.endpoints.thinker]\nmodel = "{text_model}"\ntemperature = 1.0\n'
            f"extra = {{ logit_bias = {{ {bias} }} }}\n"
            f'[execution.endpoints.thinker]\nurl = "{server.status().url}"\n'
        )
        said = StringIO()
        request = CaptionRequest(
            sources=[str(prompts)],
            out=out,
            endpoint="thinker",
            config_file=str(config),
            settings=[],
            pack=None,
        )
        begun = time.monotonic()
        code = caption(request, Terminal(said, width=300))

    assert code in (ExitCode.COMPLETE, ExitCode.COMPLETE_WITH_DEAD), said.getvalue()
    assert out.read_text(), said.getvalue()
    assert time.monotonic() - begun < 120
