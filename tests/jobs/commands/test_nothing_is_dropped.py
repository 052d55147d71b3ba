"""What is given and would have no effect is refused, and says what to do."""

import io
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.cli import main
from pipeline.plan.configs import DEFAULTS
from pipeline.store.open import open_store
from pipeline.store.plans import read_manifest
from tests.support import fake_config, plan_run, run_all

FAKE = ("--backend", "fake")
TWICE = '{"prompt": "a red kite", "seed": 1, "seed": 2}'
RECIPE = """
name = "some"
about = "some"
[[filters]]
column = "{column}"
of = "{of}"
min = 1
"""


def refused(words: Sequence[str]) -> str:
    """What a command says that ends with 2."""
    output = io.StringIO()
    with redirect_stdout(output), redirect_stderr(output), pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2, output.getvalue()
    return " ".join(output.getvalue().split())


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "300")
    (tmp_path / "prompts.txt").write_text("a red kite\n")
    (tmp_path / "array.json").write_text(f"[{TWICE}]")
    (tmp_path / "lines.jsonl").write_text(TWICE)
    (tmp_path / "table.csv").write_text("prompt,seed,seed\na red kite,1,2\n")
    columns = [pa.array(["a red kite"]), pa.array([1]), pa.array([2])]
    pq.write_table(pa.Table.from_arrays(columns, names=["prompt", "seed", "seed"]), "table.parquet")
    (tmp_path / "config.toml").write_text('[method]\ndtype = "float32"\n')
    (tmp_path / "scorers.toml").write_text("[scorer.phash]\n[scorers.phash]\n")
    store = open_store(str(tmp_path / "run"))
    run_all(store, plan_run(store, 1, fake_config()))
    return tmp_path


ENDPOINT = (
    *("--endpoint", "x", "--set", 'method.endpoints.x.model="m"'),
    *("--set", 'execution.endpoints.x.url="http://127.0.0.1:9/v1"'),
)
PLAN = ("plan", "prompts.txt", "new")
REFUSALS = {
    "a key of a line": (("plan", "lines.jsonl", "new", *FAKE), "'seed' is there twice"),
    "a key of an array": (("plan", "array.json", "new", *FAKE), "'seed' is there twice"),
    "columns of a table": (("plan", "table.csv", "new", *FAKE), "found 2 called 'seed'"),
    "columns of Parquet": (("plan", "table.parquet", "new", *FAKE), "found 2 called 'seed'"),
    "a key of evaluation files": (
        ("prompts", "prompts.txt", "--out", "out.jsonl", "--against", "lines.jsonl"),
        "'seed' is there twice",
    ),
    "a model for the fake": ((*PLAN, *FAKE, "--model", "nobody"), "the fake has no model"),
    "a dtype for the fake": ((*PLAN, *FAKE, "--dtype", "bfloat16"), "method.dtype says how"),
    "the dtype of the fake": ((*PLAN, *FAKE, "--dtype", "float32"), "method.dtype says how"),
    "strictness of the fake": (
        (*PLAN, "--set", 'method.backend="fake"', "--set", "method.strict=true"),
        "method.strict says how a model computes",
    ),
    "a cache for the fake": (
        (*PLAN, *FAKE, "--set", "execution.cache_gigabytes=2"),
        "execution.cache_gigabytes says how a model computes",
    ),
    "a dtype of a file for the fake": (
        (*PLAN, *FAKE, "--config", "config.toml"),
        "method.dtype says how a model computes",
    ),
    "a dtype for a thinker that is a fake": (
        ("caption", "prompts.txt", "out.jsonl", *FAKE, "--dtype", "float32"),
        "method.dtype says how a model computes",
    ),
    "a model beside an endpoint": (
        ("caption", "prompts.txt", "out.jsonl", *ENDPOINT, "--model", "tiny"),
        "method.model says what thinks",
    ),
    "a setting twice": (
        (*PLAN, *FAKE, "--set", "method.seed=1", "--set", "method.seed=2"),
        "method.seed is given twice",
    ),
    "a setting and its option": (
        (*PLAN, *FAKE, "--seed", "3", "--set", "method.seed=2"),
        "method.seed is given twice",
    ),
    "a table over a setting": (
        (*PLAN, *FAKE, "--set", "method.fake.dead_share=1", "--set", "method.fake={image_size=48}"),
        "method.fake.dead_share is given twice",
    ),
    "a setting over a table": (
        (*PLAN, *FAKE, "--set", "method.fake={dead_share=1}", "--set", "method.fake.dead_share=0"),
        "method.fake is given twice",
    ),
    "an option twice": (
        (*PLAN, *FAKE, "--prompt-column", "a", "--prompt-column=b"),
        "--prompt-column is there 2 times",
    ),
    "an option twice with one word": (
        ("prompts", "prompts.txt", "--out", "a.jsonl", "--report", "a", "--out", "b.jsonl"),
        "--out is there 2 times",
    ),
    "a fake that nobody asks": (
        (*PLAN, "--model", "tiny", "--set", "method.fake.image_size=48"),
        "--backend fake",
    ),
    "resources twice": ((*PLAN, *FAKE, "--resources", '{"a": 1, "a": 2}'), ""),
    "ratios without a sum": (
        (
            *(*PLAN, *FAKE, "--set", 'method.schedule.kind="ratios"'),
            *("--set", "method.schedule.ratios=[1e-320, 1e-320, 1e-320]"),
        ),
        "give some near 1",
    ),
    "rollouts of a planned run": (("run", "run", "--rollouts", "8"), "--extend RUN --rollouts"),
    "what is done with bad prompts": (("run", "run", "--skip-bad"), "there are none"),
    "execution of an extension": (
        ("plan", "--extend", "run", "--rollouts", "2", "--set", "execution.num_actors=3"),
        "leave execution settings out",
    ),
    "pictures of no record": (("show", "run", "--png", "pictures"), "name it"),
    "hits of nothing": (("prompts", "prompts.txt", "--out", "o.jsonl", "--hits", "h"), "--against"),
    "longer than a clock": ((*PLAN, *FAKE, "--set", "execution.beat_seconds=1e300"), "1000000000"),
    "more shards than there are": (("rerun", "run", "--shards", "0-999999999999"), "no shard"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_would_have_no_effect_is_refused(folder: Path, name: str):
    words, advice = REFUSALS[name]

    if name == "resources twice":  # an option of runs alone
        words = ("run", *words[1:])
    assert advice in refused(words)
    assert not (folder / "new").exists()


@pytest.mark.parametrize(
    ("column", "of"), [("trace.num_revisions", "drawing"), ("event.score", "drawing")]
)
def test_whose_score_a_field_is_cannot_be_said(folder: Path, column: str, of: str):
    (folder / "recipe.toml").write_text(RECIPE.format(column=column, of=of))

    assert "leave it out" in refused(("curate", "run", "set", "--recipe", "recipe.toml"))


def test_what_takes_nothing_away_may_be_said_again(folder: Path):
    (folder / "all.toml").write_text(DEFAULTS.read_text().replace("toy", "fake"))
    settings = ("method.seed=1", "method.fake={image_size=48}", "method.fake.patch_size=8")
    words = (*PLAN, *FAKE, "--seed", "1", "--skip-bad", "--skip-bad", "--config", "all.toml")

    with pytest.raises(SystemExit) as end:
        main([*words, *(word for setting in settings for word in ("--set", setting))])

    assert not end.value.code
    method = read_manifest(open_store(str(folder / "new"))).config.method
    assert (method.seed, method.fake.image_size, method.fake.patch_size) == (1, 48, 8)


def test_a_name_given_twice_is_shown_harmlessly(folder: Path):
    (folder / "a\x1b[31m.jsonl").write_text('{"\\u001b[2J": 1, "\\u001b[2J": 2}')

    assert "\x1b" not in refused(("plan", "a\x1b[31m.jsonl", "new", *FAKE))
