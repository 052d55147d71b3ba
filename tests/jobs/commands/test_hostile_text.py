"""Whoever writes a prompt, a model's answer, a recipe, a name of a file or a store's message writes
to our terminal. None of them can move the cursor, hide, reorder, or forge a line of ours.
"""

import io
import json
import shutil
import threading
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from jobs.cli import main
from jobs.commands.terminal import printable
from pipeline.file_names import quoted
from pipeline.scoring.find import find_scorer
from pipeline.scoring.sidecars import score_object
from pipeline.store import layout
from pipeline.store.commits import record_failed_attempt
from pipeline.store.objects import Store
from pipeline.store.open import open_store
from pipeline.store.plans import read_manifest
from pipeline.store.runs import open_run
from pipeline.twig.requests import Request, Text
from schemas.errors import FailureKind, RecordFailure, RolloutError
from schemas.ids import record_id
from schemas.runs import FailedAttempt
from schemas.trace import Role
from tests.support import at_work, attempt_at, replace_object

MARKUP = "[bold]x[/bold][link=http://example.com]y[/link]"
FORGED = "Next: rm -rf runs"
HOSTILE = "".join(
    [
        "\x1b[2J\x1b[31m",  # clears the screen, paints
        "\x1b]8;;http://example.com\x07here\x1b]8;;\x1b\\",  # a hyperlink
        "\x1b]52;c;cm0gLXJm\x07",  # writes to the clipboard
        "\x9b1A\x7f\x00\r\b",  # the same in C1, and what goes back
        "\u202e\u2066\u200f",  # reorders
        "\u200b\ufeff\u00ad\ue000",  # is not seen
        f"{MARKUP}\n{FORGED}\u2028{FORGED}\x85{FORGED}",
    ]
)
PROMPT = "".join(char for char in HOSTILE if unicodedata.category(char) != "Cc")  # can be planned
NAME = f"a\x1b[31m\x9b\u202e\u200b[bold]x\n{FORGED}"  # of a file
RECIPE = f"""
name = {json.dumps(HOSTILE)}
about = {json.dumps(HOSTILE)}
scorers = ["thoughts@1"]
[[filters]]
column = "trace.category"
equals = "none is this"
reason = {json.dumps("dull " + HOSTILE)}
tasks = ["think"]
"""


class Said(NamedTuple):
    """What a command printed."""

    out: str
    err: str
    code: int | str | None


class _Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


def coppice(*words: str, file: type[io.StringIO] = io.StringIO) -> Said:
    """What a command prints in this process, which must be harmless, and how it ends."""
    out, err = file(), file()
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as end:
        main(words)
    said = Said(out.getvalue(), err.getvalue(), end.value.code)
    assert said.code in {None, 0, 2, 3, 4, 5, 7, 9}, said
    hostile = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}
    shown = (said.out + said.err).replace("\n", "")
    assert not [char for char in shown if unicodedata.category(char) in hostile], said
    if file is not _Tty:  # which wraps lines
        assert not [line for line in said.out.split("\n") if line.strip().startswith(FORGED)], said
    return said


def some_answer(request: Request) -> str | RolloutError | None:
    """A thought, a critique that can be read, one that cannot, or a death: all hostile."""
    if not isinstance(request, Text) or request.role is Role.SCHEDULE:
        return None
    asked = repr(request.messages)
    if "dead" in asked:
        return RecordFailure(HOSTILE, reason="scripted")
    if request.role is not Role.REFLECT:
        return HOSTILE
    return HOSTILE if "unread" in asked else f"SCORE: 40\nIMPROVED_DESCRIPTION: {HOSTILE}"


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with prompts, a recipe and a run, hostile in all their words and names."""
    folder = tmp_path_factory.mktemp("template")
    lines = [
        {"prompt": f"{word} cat {PROMPT}", "category": f"{word} {HOSTILE}", HOSTILE: HOSTILE}
        for word in ("plain", "unread", "dead")
    ]
    (folder / f"{NAME}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (folder / f"{NAME}.toml").write_text(RECIPE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        sizes = {"image_size": 32, "patch_size": 8, "num_codes": 512, "num_text_tokens": 8}
        settings = [f"--set=method.fake.{key}={value}" for key, value in sizes.items()]
        planned = coppice(
            "plan", f"{NAME}.jsonl", NAME, "--backend=fake", "--pictures=all", *settings
        )
    assert planned.code in (0, None), planned
    store = open_store(str(folder / NAME))
    with at_work(store, read_manifest(store), script=some_answer) as worker:
        worker.run_shard(attempt_at(0, 2))
    note = FailedAttempt(
        shard=0,
        attempt_id="some-attempt",
        attempt=1,
        kind=FailureKind.TASK,
        reason="worker",
        message=HOSTILE,
        worker=HOSTILE,
        ended_at="2026-01-01T00:00:00+00:00",
    )
    record_failed_attempt(store, note)
    for source in (run := open_run(store.url)).objects:
        score_object(run.store, source, find_scorer("thoughts"))
    return folder


@pytest.fixture
def store(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A copy of the run, in the folder where commands start."""
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "2000")  # a table's cell in one piece
    shutil.copytree(template, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    return open_store(str(tmp_path / "here" / NAME))


def record_of(word: str) -> str:
    """The id of the record whose prompt begins so."""
    return record_id(f"{word} cat {PROMPT}")


# What is there


@pytest.mark.parametrize(
    "words", [("status",), ("run",), ("rerun", "--dry-run", "--reason", NAME), ("verify",)]
)
def test_a_run_is_told_of(store: Store, words: Sequence[str]):
    name, *options = words

    said = coppice(name, NAME, *options)

    assert said.err == ""
    assert said.out


def test_records_are_listed_with_their_prompts(store: Store):
    said = coppice("show", NAME)

    assert said.out.count(MARKUP) == 3


def test_records_are_chosen_by_hostile_conditions(store: Store):
    quoted = MARKUP.replace("'", "''")
    said = coppice("show", NAME, "--where", f"category contains '{quoted}'", "--sort", "prompt")

    assert said.out.count(MARKUP) == 6  # the category that was asked for, and the prompt
    assert "3 traces in all." in said.out


def test_a_gallery_is_told_of(store: Store):
    said = coppice("view", NAME, f"gallery {NAME}", "--where", "dead_message is null")

    assert f"Gallery: {quoted(f'gallery {NAME}/index.html')}, 2 traces\n" in said.out


@pytest.mark.parametrize(
    ("word", "num_quoted"),
    # The prompt, three thoughts, and three critiques or one death.
    [("plain", 7), ("unread", 7), ("dead", 2)],
)
def test_a_trace_is_shown(store: Store, word: str, num_quoted: int):
    said = coppice("show", NAME, record_of(word))

    assert said.out.count(MARKUP) >= num_quoted


def test_a_picture_is_shown_at_a_terminal(store: Store, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TERM", "dumb")  # has no colours

    said = coppice("show", NAME, record_of("plain"), file=_Tty)

    assert "\u2580" * 48 in said.out


def test_pictures_and_sheets_are_written_where_they_were_to_go(store: Store):
    pictures = coppice("show", NAME, record_of("plain"), "--png", f"png {NAME}")
    sheet = coppice("show", NAME, "--sheet", f"sheet {NAME}.png")

    assert f"wrote {printable(f'png {NAME}')}/" in pictures.out
    assert "Contact sheet: " in sheet.out
    assert Path(f"sheet {NAME}.png").is_file()


def test_a_story_is_told(store: Store):
    said = coppice("why", NAME, record_of("dead"))

    # The prompt, the death, and the worker and the message of the attempt that failed.
    assert said.out.count(MARKUP) == 4


def test_damage_is_told_and_moved_aside(store: Store):
    replace_object(store, 0, footer={"run_id": HOSTILE, "attempt_id": HOSTILE})
    Path(NAME, layout.TRACES, NAME).write_bytes(b"something else")
    verified = coppice("verify", NAME, "--deep")
    counted = coppice("verify", NAME, "--json")
    store.put(layout.traces_key(0), b"something else")
    repaired = coppice("repair", NAME, "--shards", "0")

    assert verified.code == counted.code == 9
    assert MARKUP in verified.out
    assert f"{layout.TRACES}/{printable(NAME)}\n" in verified.out
    keys = {finding["key"] for finding in json.loads(counted.out)["findings"]}
    assert f"{layout.TRACES}/{NAME}" in keys
    assert f"1 object moved to {quoted(NAME)}/{layout.QUARANTINE}/." in repaired.out


def test_rows_of_anyone_are_shown(store: Store):
    def change(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        names = ("prompt", "program", "run_id", "worker", "dead_reason", "dead_message")
        texts = dict.fromkeys(names, HOSTILE) | {"model": {"name": HOSTILE, "digest": HOSTILE}}
        return [row | texts for row in rows]

    record = record_of("plain")
    replace_object(store, 0, rows=change)

    for words in (("show", NAME), ("show", NAME, record), ("why", NAME, record), ("status", NAME)):
        assert coppice(*words).out


def test_leftovers_are_listed(store: Store):
    lost = "0001-lost \u202e[bold]x"
    store.put(f"plan/{lost}/shard-00000.parquet", b"x")

    said = coppice("gc", NAME, "--dry-run")

    assert f"plan/{printable(lost)}/shard-00000.parquet " in said.out
    assert "1 object, 1 B, would be removed." in said.out


# Training sets


def test_prompts_are_told_of(store: Store):
    said = coppice(
        *("prompts", f"{NAME}.jsonl", "--out", f"out {NAME}.jsonl"),
        *("--report", f"report {NAME}.json", "--origin", HOSTILE),
    )

    assert said.code in (0, None), said
    assert f"Prompts: out {printable(NAME)}.jsonl" in said.out
    assert "No spec, " in said.out


def test_a_run_that_is_scored_is_told_of(store: Store):
    said = coppice("score", NAME, "--scorer", "thoughts")

    assert "Scored by thoughts@1: " in said.out


def test_the_funnel_shows_reasons_and_categories(store: Store):
    dry = coppice("curate", NAME, f"set {NAME}", "--recipe", f"{NAME}.toml", "--dry-run")
    said = coppice("curate", NAME, f"set {NAME}", "--recipe", f"{NAME}.toml")

    assert said.code in (0, None), said
    assert said.out.startswith(dry.out.removesuffix("Nothing was written.\n"))
    assert f"dull {printable(HOSTILE)}" in said.out
    assert f"plain {printable(HOSTILE)} " in said.out


# What cannot be done


ERRORS = {
    "no such record": ("show", NAME, HOSTILE.replace("\x00", "")),
    "no such column": ("show", NAME, "--where", f"'{MARKUP}\u202e' < 1"),
    "no condition": ("show", NAME, "--where", f"score < 1 {MARKUP}\x1b[2J\u202e"),
    "no order": ("view", NAME, "--sort", HOSTILE),
    "no such set": ("view", f"nowhere {NAME}"),
    "no such story": ("why", NAME, MARKUP + "\u202e"),
    "no such run": ("status", f"nowhere {NAME}"),
    "no such bucket": ("status", f"s3://{NAME}/run"),
    "no such scheme": ("status", f"ftp://{NAME}"),
    "no such recipe": ("curate", NAME, "set", "--recipe", HOSTILE.replace("\x00", "")),
    "no such export": ("curate", NAME, "set", "--recipe", "natural", "--export", NAME),
    "no such scorer": ("score", NAME, "--scorer", NAME),
    "no such object": ("score", NAME, "--scorer", f"{NAME}:{NAME}"),
    "no such model": ("plan", f"{NAME}.jsonl", "run", "--model", f"./{NAME}x"),
    "no such pack": ("plan", f"{NAME}.jsonl", "run", "--backend=fake", "--pack", f"{NAME}x"),
    "no such config": ("plan", f"{NAME}.jsonl", "run", "--config", f"{NAME}x"),
    "no such setting": ("plan", f"{NAME}.jsonl", "run", "--set", f"method.{NAME}=1"),
    "no such value": ("run", NAME, "--set", f"method.schedule.num_regions={NAME}"),
    "no setting": ("plan", f"{NAME}.jsonl", "run", "--set", NAME),
    "another method": ("run", NAME, "--set", "method.fake.num_codes=77", "--pack", "toy"),
    "no such prompts": ("plan", f"nowhere {NAME}", "run"),
    "no such shards": ("repair", NAME, "--shards", NAME),
    "no such leaks": ("prompts", f"{NAME}.jsonl", "--out", "p.jsonl", "--keep-leaks", NAME),
    "no such choice": ("plan", f"{NAME}.jsonl", "run", "--program", NAME),
    "no number": ("show", NAME, "--rollout", NAME),
    "no such option": ("show", NAME, f"--{NAME}"),
    "no such command": (NAME,),
    "too many words": ("status", NAME, NAME),
    "a whole shard": ("repair", NAME, "--shards", "0"),
    "another set": ("curate", NAME, NAME, "--recipe", f"{NAME}.toml"),
    "a bad recipe": ("curate", NAME, "set", "--recipe", f"{NAME}.jsonl"),
    "a bad name to write": ("prompts", f"{NAME}.jsonl", "--out", NAME),
}


@pytest.mark.parametrize("name", ERRORS)
def test_what_cannot_be_done_is_told(store: Store, name: str):
    said = coppice(*ERRORS[name])

    assert said.code in (2, 5, 7), said
    assert said.err


def test_a_lone_surrogate_is_told(store: Store):
    """Python gives a byte that is no UTF-8 as one, and JSON may hold one."""
    Path("bad.jsonl").write_text('{"prompt": "half \\ud83d [bold]x", "category": "\\ud83d"}')

    for words in (
        ("plan", "bad.jsonl", "run", "--backend=fake"),
        ("prompts", "bad.jsonl", "--out", "p.jsonl"),
        ("status", "no\udc9bwhere"),
        ("show", NAME, "no\udc9bwhere"),
    ):
        assert coppice(*words).code == 2


def test_fields_of_a_recipe_are_told(store: Store):
    Path("bad.toml").write_text(
        f"name = 'bad'\n{json.dumps(HOSTILE)} = 1\n[mix.weights]\n{json.dumps(HOSTILE)} = 1"
    )

    said = coppice("curate", NAME, "set", "--recipe", "bad.toml")

    assert said.code == 2
    assert MARKUP in said.err


# A store that says hostile things


class _HostileStore(BaseHTTPRequestHandler):
    """Refuses everything, in words of its own."""

    body = b""

    def do_GET(self) -> None:
        self.send_response(403, "no \x9b31m")
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    do_PUT = do_HEAD = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def hostile_store(aws_settings: pytest.MonkeyPatch) -> Iterator[type[_HostileStore]]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _HostileStore)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    aws_settings.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    aws_settings.setenv("AWS_MAX_ATTEMPTS", "1")
    try:
        yield _HostileStore
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("code", ["&#x202e;&#x9b;31m[bold]x&#10;", "&#x1b;[2J", "\x1b[2J\x9b"])
def test_what_a_store_says_is_quoted(store: Store, hostile_store: type[_HostileStore], code: str):
    hostile_store.body = f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()

    said = coppice("status", "s3://bucket/run")

    assert said.code == 7
    assert said.err.startswith("coppice: ")
