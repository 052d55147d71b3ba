"""`coppice verify` as people and scripts have it."""

import io
import json
from pathlib import Path

import pytest

from jobs.commands.terminal import Terminal
from jobs.commands.verify import verify_run
from pipeline.store import layout
from pipeline.store.objects import Store
from pipeline.store.open import open_store
from schemas.errors import ExitCode
from tests.jobs.conftest import Coppice
from tests.support import plan_run, replace_object, run_all


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A run of 4 shards of 2 rollouts, the last one not grown yet."""
    store = open_store(str(tmp_path / "run"))
    run_all(store, plan_run(store, 8, rollouts_per_shard=2))
    store.delete(layout.traces_key(3))
    return store


def verify(store: Store, *, as_json: bool = False) -> tuple[ExitCode, str]:
    said = io.StringIO()
    code = verify_run(store.url, Terminal(said, width=80), is_deep=True, as_json=as_json)
    return code, said.getvalue()


def test_a_whole_run_ends_with_0_and_its_sum(store: Store):
    code, said = verify(store)

    assert code == 0
    assert "8 planned = 6 ok + 0 dead + 2 missing; 3 of 4 shards committed." in said
    assert "Whole: every page was read." in said


def test_damage_ends_with_9_and_the_command_that_repairs_it(store: Store):
    for shard in (0, 1):
        store.put(layout.traces_key(shard), b"something else")

    code, said = verify(store)

    assert code is ExitCode.DAMAGED
    assert code == 9
    assert "traces/shard-00000.parquet\n  found     a file that cannot be read" in said
    assert "--shards 0-1\n" in said.partition("Next: coppice repair ")[2]
    assert "8 planned = 2 ok + 0 dead + 6 missing" in said


def test_a_script_gets_one_object(store: Store):
    store.put(f"{layout.TRACES}/notes.txt", b"something else")

    code, said = verify(store, as_json=True)
    summary = json.loads(said)

    assert code == summary["exit_code"] == 9
    assert (summary["num_planned"], summary["num_ok"], summary["num_missing"]) == (8, 6, 2)
    (finding,) = summary["findings"]
    assert finding["key"] == "traces/notes.txt"
    assert finding["shard"] is None


def test_what_a_finding_quotes_cannot_move_the_cursor(store: Store):
    replace_object(store, 1, footer={"run_id": "a\x1b[2Jb"})

    _, said = verify(store)

    assert "\x1b" not in said
    assert "a\\u001b[2Jb" in said


def test_the_command_says_how_it_ended(store: Store, coppice: Coppice):
    whole = coppice("verify", "run")
    store.put(layout.traces_key(0), b"something else")
    damaged = coppice("verify", "run", "--json")

    assert whole.returncode == 0, whole.stderr
    assert damaged.returncode == 9, damaged.stderr
    assert json.loads(damaged.stdout)["findings"][0]["shard"] == 0
