"""Metrics of a run, as Ray's own Prometheus endpoint tells them, and the dashboard of them."""

import json
import re
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest
import ray

from jobs.cluster.driver import Driver
from jobs.cluster.metrics import RunMetrics, WorkMetrics
from pipeline.store.open import open_store
from schemas.config import FakeConfig
from schemas.runs import EndpointUsage, WorkerStatus
from tests.support import SMALL, fake_config, fake_method, plan_run

DASHBOARD = Path(__file__).parents[3] / "examples" / "grafana.json"
FAKE = SMALL.model_dump() | {"dead_share": 0.3, "delay_seconds": 0.25}


def names_in_the_dashboard() -> set[str]:
    return set(re.findall(r"ray_coppice_\w+", DASHBOARD.read_text()))


def test_the_dashboard_is_json_whose_panels_all_ask_for_metrics():
    panels = json.loads(DASHBOARD.read_text())["panels"]

    assert all("ray_coppice_" in t["expr"] for panel in panels for t in panel["targets"])
    assert len(names_in_the_dashboard()) == 10


TAGS = (
    'ray_coppice_rollouts_total{[^}]*end="(accepted|revised)"',
    'ray_coppice_rollouts_total{[^}]*end="dead_scripted"',
    'ray_coppice_tokens_total{[^}]*role="draw"',
    'ray_coppice_phase_seconds_total{[^}]*device="cpu"[^}]*phase="load"',
)


def missing_in(told: str) -> list[str]:
    """Names of the dashboard, and tags that we promise, which an endpoint does not tell."""
    names = names_in_the_dashboard() - set(re.findall(r"^ray_coppice_\w+", told, re.M))
    return [*names, *(tags for tags in TAGS if not re.search(tags, told))]


class _Kept:
    """What a metric of Ray's was told, in its place."""

    told: ClassVar[dict[tuple[str, ...], float]] = {}

    def __init__(self, name: str, description: str, tag_keys: tuple[str, ...]) -> None:
        self._name = name

    def inc(self, number: float, tags: dict[str, str]) -> None:
        key = (self._name, *(value for name, value in sorted(tags.items()) if name != "run"))
        self.told[key] = self.told.get(key, 0) + number

    def set(self, number: float, tags: dict[str, str]) -> None:
        pass


def test_what_endpoints_answered_is_told_once(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_Kept, "told", {})
    monkeypatch.setattr("jobs.cluster.metrics.Counter", _Kept)
    monkeypatch.setattr("jobs.cluster.metrics.Gauge", _Kept)
    metrics = WorkMetrics("some-run")
    first = EndpointUsage(num_calls=2, prompt_tokens=20, completion_tokens=6, seconds=1.5)
    more = EndpointUsage(num_calls=1, num_retries=1, prompt_tokens=10)
    for usage in (first, first, first + more):
        metrics.tell(WorkerStatus(endpoints={"critic": usage}))

    assert _Kept.told == {
        ("coppice_endpoint_answers_total", "critic"): 3,
        ("coppice_endpoint_retries_total", "critic"): 1,
        ("coppice_endpoint_seconds_total", "critic"): 1.5,
        ("coppice_endpoint_tokens_total", "input", "critic"): 30,
        ("coppice_endpoint_tokens_total", "output", "critic"): 6,
    }


@pytest.fixture
def endpoint() -> Iterator[str]:
    """A Ray in this process, and where its node tells metrics."""
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    node = ray.nodes()[0]
    yield f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    ray.shutdown()


@pytest.mark.slow
@pytest.mark.ray
def test_rays_endpoint_tells_what_the_dashboard_asks_for(tmp_path: Path, endpoint: str):
    store = open_store(str(tmp_path / "run"))
    config = fake_config(fake_method(FakeConfig(**FAKE)), num_actors=2, live_rollouts_per_actor=4)
    manifest = plan_run(store, 400, config, rollouts_per_shard=4)
    metrics, seen = RunMetrics(manifest.run_id), ""
    is_over = threading.Event()

    def look() -> None:
        nonlocal seen
        while not is_over.wait(1.0):
            with urllib.request.urlopen(endpoint, timeout=5) as answer:
                text = answer.read().decode()
            told = [line for line in text.splitlines() if manifest.run_id in line]
            seen = "\n".join(told) if len(told) > len(seen.splitlines()) else seen
            if not missing_in(seen):
                is_over.set()

    began = time.monotonic()
    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    driver = Driver(
        store,
        manifest,
        show=metrics.tell,
        is_stopping=lambda: is_over.is_set() or time.monotonic() - began > 200,
    )
    driver.run()
    is_over.set()
    watcher.join()

    assert not missing_in(seen), seen
