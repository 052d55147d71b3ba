"""Whatever a store, or a library behind one, says in mid-command is a sentence of ours."""

import io
import shutil
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from itertools import cycle, product
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.cli import main
from pipeline.store import objects, preflight
from pipeline.store.local import LocalStore
from pipeline.store.open import open_store
from schemas.errors import (
    CredentialsRefused,
    ExitCode,
    ObjectMissing,
    StoreRefused,
    StoreUnavailable,
)
from schemas.ids import record_id
from tests.pipeline.store.trouble.test_s3_words import all_errors
from tests.support import fake_config, plan_run, run_all

RECORD = record_id("prompt number 1")
RECIPE = 'name = "some"\nabout = "some"\npictures = "tokens"\n'
COMMANDS = [
    ("status", "RUN"),
    ("verify", "RUN", "--deep"),
    ("show", "RUN"),
    ("show", "RUN", RECORD),
    ("why", "RUN", RECORD),
    ("rerun", "RUN", "--dry-run"),
    ("rerun", "RUN"),
    ("gc", "RUN", "--settle-seconds", "0"),
    ("repair", "RUN", "--shards", "1"),
    ("run", "RUN"),
    ("plan", "prompts.txt", "RUN", "--backend", "fake"),
    ("plan", "--extend", "prompts.txt", "RUN"),
    ("score", "RUN", "--scorer", "thoughts"),
    ("curate", "RUN", "RUN-set", "--recipe", "recipe.toml", "--dry-run"),
    ("prompts", "RUN/prompts.txt", "--out", "out.jsonl"),
]


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "PATIENCE_SECONDS", 0)
    monkeypatch.setattr(objects, "FIRST_PAUSE_SECONDS", 0)


def said(words: Sequence[str]) -> tuple[int, str]:
    output = io.StringIO()
    with redirect_stdout(output), redirect_stderr(output), pytest.raises(SystemExit) as end:
        main(words)
    return int(end.value.code or 0), output.getvalue()


def check(words: Sequence[str]) -> None:
    code, output = said(words)
    assert code in set(ExitCode) - {ExitCode.BUG}, (words, output)  # which a traceback ends with


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "prompts.txt").write_text("prompt number 0\nprompt number 1\n")
    (tmp_path / "recipe.toml").write_text(RECIPE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_every_error_of_s3s_libraries_is_a_sentence_in_every_command(
    files: Path, aws_settings: pytest.MonkeyPatch
):
    commands, errors = cycle(COMMANDS), all_errors()
    for error in [*errors, *errors[: -len(errors) % len(COMMANDS)]]:

        def fail(*_: Any, error: Exception = error) -> None:
            raise error

        aws_settings.setattr("botocore.client.BaseClient._make_api_call", fail)
        check([word.replace("RUN", "s3://bucket/run") for word in next(commands)])


VERBS = ("read", "read_range", "size", "list_folder", "list_subfolders", "put", "put_if_absent")
ERRORS: dict[str, Callable[[], Exception]] = {
    "away": lambda: StoreUnavailable("down"),
    "refused": lambda: StoreRefused("no"),
    "expired": lambda: CredentialsRefused("expired"),
    "gone": lambda: ObjectMissing("it was there"),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete run."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    store = open_store(str(folder))
    config = fake_config(store_patience_seconds=0, beat_seconds=0.01)
    run_all(store, plan_run(store, 3, config, rollouts_per_shard=2))
    return folder


class FailsAt:
    """In the place of some functions: all are called as they were, but for the n-th call."""

    def __init__(self, number: int, error: Callable[[], Exception]) -> None:
        self.number, self.error = number, error
        self.num_calls = 0

    def over(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            self.num_calls += 1
            if self.num_calls == self.number:
                raise self.error()
            return function(*arguments, **named)

        return call


@pytest.mark.parametrize("words", COMMANDS[:11] + COMMANDS[13:14], ids=" ".join)
@pytest.mark.parametrize(
    ("step", "kinds"),
    [(11, [*ERRORS][:1]), pytest.param(1, [*ERRORS], marks=pytest.mark.slow)],
    ids=["some calls", "all calls"],
)
def test_a_store_that_fails_at_any_call_of_a_command_is_a_sentence(
    whole: Path,
    files: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: Sequence[str],
    step: int,
    kinds: Sequence[str],
):
    for kind, number in product(kinds, range(1, 100, step)):
        shutil.rmtree(files / "run", ignore_errors=True)
        shutil.copytree(whole, files / "run")
        failing = FailsAt(number, ERRORS[kind])
        with monkeypatch.context() as patch:
            for verb in VERBS:
                patch.setattr(LocalStore, verb, failing.over(getattr(LocalStore, verb)))
            check([word.replace("RUN", "run") for word in words])


PARQUET = ("read", "iter_batches", "__init__")


@pytest.mark.parametrize("words", COMMANDS[:6], ids=" ".join)
@pytest.mark.parametrize("error", [pa.ArrowInvalid("x"), OSError("x"), MemoryError()], ids=repr)
def test_what_pyarrow_says_while_it_reads_is_a_sentence(
    whole: Path,
    files: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: Sequence[str],
    error: Exception,
):
    for number in range(1, 12):
        shutil.rmtree(files / "run", ignore_errors=True)
        shutil.copytree(whole, files / "run")
        failing = FailsAt(number, lambda: error)
        with monkeypatch.context() as patch:
            for verb in PARQUET:
                patch.setattr(pq.ParquetFile, verb, failing.over(getattr(pq.ParquetFile, verb)))
            check([word.replace("RUN", "run") for word in words])
        if failing.num_calls < number:
            break


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("show", "RUN", RECORD, "--png", "recipe.toml/x"), 2),
        (("show", "RUN", "--sheet", "/proc/sheet.png"), 2),
        (("show", "RUN", "--sheet", "/dev/full"), 7),
    ],
)
def test_a_file_that_cannot_be_written_is_a_sentence(
    whole: Path, files: Path, words: Sequence[str], code: int
):
    assert said([word.replace("RUN", str(whole)) for word in words])[0] == code
