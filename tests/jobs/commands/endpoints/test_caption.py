"""`coppice caption`: thoughts by a thinker alone, written line by line, and runs that draw them."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.commands.endpoints.caption import CaptionRequest, caption
from jobs.commands.endpoints.caption_file import opened_captions
from jobs.commands.plan import PlanRequest, plan_run
from jobs.commands.terminal import Terminal
from pipeline.plan.packs import settings_of
from pipeline.sets.replay import requests_of
from pipeline.store.open import open_store
from schemas.errors import DriverAlive, ExitCode, InputError, TooManyDead
from schemas.prompts import Prompt
from tests.stand_in_server import Asked, Reaction, StandIn, completion, good_answer, stand_in_server
from tests.support import all_rows, run_all

COLOURS = ("red", "blue", "green", "grey")


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.jsonl"
    rows = [{"prompt": f"a {colour} cube", "category": colour} for colour in COLOURS]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def config_of(server: StandIn, folder: Path, **execution: Any) -> Path:
    """A run's config with an endpoint that thinks, among others."""
    path = folder / "teacher.toml"
    more = "".join(f"{name} = {value}\n" for name, value in execution.items())
    path.write_text(
        '[method]\nmodel = "nowhere/to-be-found"\n[method.backends]\nreflect = "other"\n'
        '[method.endpoints.thinker]\nmodel = "stand-in"\n[method.endpoints.other]\nmodel = "x"\n'
        f'[execution.endpoints.thinker]\nurl = "{server.url}"\n{more}'
    )
    return path


def run(sources: Path, out: Path, **changes: Any) -> tuple[ExitCode, str]:
    said = io.StringIO()
    request = {"endpoint": None, "config_file": None, "settings": [], "pack": None} | changes
    code = caption(
        CaptionRequest(sources=[str(sources)], out=out, **request), Terminal(said, width=500)
    )
    return code, said.getvalue()


def by_fake(sources: Path, out: Path, *settings: str) -> tuple[ExitCode, str]:
    return run(sources, out, settings=["method.backend=fake", *settings])


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_an_endpoint_thinks_of_each_prompt_step_by_step(prompts: Path, tmp_path: Path):
    out = tmp_path / "made" / "thoughts.jsonl"
    with stand_in_server() as server:
        config = str(config_of(server, tmp_path))
        code, said = run(prompts, out, endpoint="thinker", config_file=config)
        asked = [question.text for question in server.questions if question.schema is None]
        again, said_again = run(prompts, out, endpoint="thinker", config_file=config)

    assert (code, again) == (ExitCode.COMPLETE, ExitCode.COMPLETE)
    rows = lines(out)
    assert [row["prompt"] for row in rows] == [f"a {colour} cube" for colour in COLOURS]
    assert [row["category"] for row in rows] == list(COLOURS)
    assert rows[0]["thoughts"] == ["A red hat on a table."] * 3
    assert {row["model"] for row in rows} == {"stand-in"}
    assert len(asked) == 12
    assert sum("What is above is described as" in text for text in asked) == 8
    assert not any("canvas" in text for text in asked)
    assert "0 to think of" in said_again
    assert "coppice run" in said


def test_bad_answers_are_counted_by_kind_and_asked_for_again(prompts: Path, tmp_path: Path):
    def react(asked: Asked) -> Reaction:
        if "blue" in asked.text:
            return Reaction(body=completion("  "))
        if "green" in asked.text:
            return Reaction(body=completion("A half sent", finish="length"))
        return good_answer(asked)

    out = tmp_path / "thoughts.jsonl"
    with stand_in_server(react) as server:
        config = str(config_of(server, tmp_path))
        code, said = run(prompts, out, endpoint="thinker", config_file=config)
        server.react = good_answer
        again, _ = run(prompts, out, endpoint="thinker", config_file=config)

    assert (code, again) == (ExitCode.COMPLETE_WITH_DEAD, ExitCode.COMPLETE)
    assert "2 prompts without usable thoughts (empty_thought 1, truncated 1)" in said
    assert "prompts.jsonl:2: thought 1 is empty" in said
    order = ["red", "grey", "blue", "green"]
    assert [row["category"] for row in lines(out)] == order


def test_a_thinker_that_is_gone_leaves_what_was_written(prompts: Path, tmp_path: Path):
    out = tmp_path / "thoughts.jsonl"
    limits = {"patience_seconds": 0.2, "concurrency": 1, "max_tries": 1}
    with stand_in_server() as server:
        config = str(config_of(server, tmp_path, **limits))

        def react(asked: Asked) -> Reaction:
            is_late = asked.number > 8
            return Reaction(status=503) if is_late else good_answer(asked)

        server.react = react
        rollouts = "execution.live_rollouts_per_actor=1"
        asking = {"endpoint": "thinker", "config_file": config, "settings": [rollouts]}
        code, said = run(prompts, out, **asking)
        num_written = len(lines(out))
        server.react = good_answer
        again, _ = run(prompts, out, **asking)

    assert code is ExitCode.INCOMPLETE
    assert "What is written stays" in said
    assert 0 < num_written < 4
    assert again is ExitCode.COMPLETE
    assert [row["category"] for row in lines(out)] == list(COLOURS)


def test_a_thinker_that_says_nothing_usable_is_stopped(tmp_path: Path):
    path = tmp_path / "prompts.txt"
    path.write_text("\n".join(f"cube {number}" for number in range(40)))
    with pytest.raises(TooManyDead, match="prompts got no usable thoughts"):
        by_fake(path, tmp_path / "out.jsonl", "method.fake.dead_share=1.0")


def test_a_killed_command_leaves_half_a_line_which_is_written_again(prompts: Path, tmp_path: Path):
    out = tmp_path / "thoughts.jsonl"
    by_fake(prompts, out)
    whole = out.read_bytes()
    for cut in (1, 10, 60, len(whole) // 2, len(whole) - 1):
        out.write_bytes(whole[:-cut])
        code, _ = by_fake(prompts, out)
        assert code is ExitCode.COMPLETE
        assert out.read_bytes() == whole


@pytest.mark.parametrize(
    "content",
    [
        "a note\n",
        "a note without an end",
        '{"prompt": "a red cube"}\n',
        '{"prompt": "another", "thoughts": ["1", "2", "3"]}\n',
        '{"prompt": "a red cube", "thoughts": ["1"], "model": "fake", "thoughts_by": "0"}\n',
        "\n",
    ],
)
def test_a_file_that_holds_anything_else_is_left_alone(prompts: Path, tmp_path: Path, content: str):
    out = tmp_path / "thoughts.jsonl"
    out.write_text(content)
    with pytest.raises(InputError, match=r"thoughts.jsonl:1 was not written by this command"):
        by_fake(prompts, out)
    assert out.read_text() == content


@given(content=st.binary(max_size=60))
@settings(max_examples=100, deadline=None)
def test_no_byte_of_a_foreign_file_is_ever_lost(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
):
    path = tmp_path_factory.getbasetemp() / "foreign.jsonl"
    path.write_bytes(content)
    wanted = [Prompt(text="a cube", metadata={}, source="p", line=1)]
    try:
        with opened_captions(path, wanted, model="m", method="0") as (_, done):
            assert not done
    except InputError:
        assert path.read_bytes() == content
    else:
        assert b'{"prompt": "a cube", "thoughts": ['.startswith(content)


def test_two_at_once_are_refused_and_so_is_another_thinker(prompts: Path, tmp_path: Path):
    out = tmp_path / "thoughts.jsonl"
    by_fake(prompts, out)
    before = out.read_bytes()

    with pytest.raises(InputError, match="asked for otherwise"):
        by_fake(prompts, out, "method.seed=7")
    with (
        opened_captions(tmp_path / "other.jsonl", [], model="m", method="0"),
        pytest.raises(DriverAlive, match="another coppice caption writes"),
    ):
        by_fake(prompts, tmp_path / "other.jsonl")
    assert out.read_bytes() == before


@pytest.mark.parametrize(
    ("out", "changes", "words"),
    [
        ("thoughts.txt", {}, "ends in .jsonl"),
        ("s3://bucket/thoughts.jsonl", {}, "a local path"),
        ("prompts.jsonl", {}, "read as well"),
        ("out.jsonl", {"endpoint": "thinker"}, r"there is no \[method.endpoints.thinker\]"),
    ],
)
def test_what_cannot_be_written_or_asked_is_refused_first(
    prompts: Path, tmp_path: Path, out: str, changes: dict[str, Any], words: str
):
    target = Path(out) if "://" in out else tmp_path / out
    with pytest.raises(InputError, match=words):
        run(prompts, target, settings=["method.backend=fake"], **changes)


def test_what_is_left_out_of_the_prompt_file_is_counted(tmp_path: Path):
    path = tmp_path / "prompts.txt"
    path.write_text("a cube\n\na cube\n")
    code, said = run(path, tmp_path / "out.jsonl", settings=["method.backend=fake"], skip_bad=True)
    assert code is ExitCode.COMPLETE
    assert "Left out: 1 exact duplicate, 1 unusable prompt." in said


def test_columns_of_its_own_are_refused_in_the_prompt_file(tmp_path: Path):
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "a cube", "model": "old"}\n')
    with pytest.raises(InputError, match="column model, which the new file has itself"):
        by_fake(path, tmp_path / "out.jsonl")


def test_a_run_draws_from_the_thoughts_and_sets_do_not_learn_them(prompts: Path, tmp_path: Path):
    out, url = tmp_path / "thoughts.jsonl", str(tmp_path / "run")
    by_fake(prompts, out)
    fake = ["method.backend=fake", "method.thoughts=given", "method.fake.image_size=64"]
    request = PlanRequest(sources=[str(out)], url=url, settings=fake)
    said = io.StringIO()
    manifest = plan_run(request, Terminal(said, width=500))
    store = open_store(url)
    run_all(store, manifest)

    thought = {row["prompt"]: row["thoughts"] for row in lines(out)}
    for row in all_rows(store, manifest):
        told = [event for event in row["events"] if event["role"] == "think"]
        assert [event["text"] for event in told] == thought[row["prompt"]]
        assert {event["backend"] for event in told} == {"given"}
        assert all(event["token_ids"] is None for event in told)
        requests = requests_of(row, settings_of(manifest))
        assert [request.role for request in requests] == [event["role"] for event in row["events"]]
    assert "think-while from given thoughts with fake" in said.getvalue()
