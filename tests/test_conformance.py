import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.pictures import decode_picture
from tests.conformance import main

GOLDEN = Path(__file__).parent / "golden"

Tamper = Callable[[dict[str, Any], Path], None]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """On so small a model, threads cost more than they bring."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def one_trace(tmp_path: Path) -> Path:
    """A golden folder with a single trace, free to be changed."""
    golden = json.loads((GOLDEN / "golden.json").read_text(encoding="utf-8"))
    golden["traces"] = golden["traces"][:1]
    picture = golden["traces"][0]["final_image"]
    (tmp_path / "janus-tiny").symlink_to(GOLDEN / "janus-tiny")
    (tmp_path / picture).write_bytes((GOLDEN / picture).read_bytes())
    (tmp_path / "golden.json").write_text(json.dumps(golden), encoding="utf-8")
    return tmp_path


def change_trace(folder: Path, tamper: Tamper) -> None:
    golden = json.loads((folder / "golden.json").read_text(encoding="utf-8"))
    tamper(golden["traces"][0], folder)
    (folder / "golden.json").write_text(json.dumps(golden), encoding="utf-8")


@pytest.mark.timeout(300)  # ten seconds of work, on a machine that may have others to serve
@pytest.mark.parametrize("backend", ["reference", "engine"])
def test_a_backend_makes_every_golden_call(backend: str, capsys: pytest.CaptureFixture[str]):
    assert main([str(GOLDEN), "--backend", backend]) == 0
    assert capsys.readouterr().out == "96 of 96 calls equal\n"


def change_an_output_id(trace: dict[str, Any], folder: Path) -> None:
    trace["events"][3]["output_ids"][5] += 1


def change_a_token_of_a_canvas(trace: dict[str, Any], folder: Path) -> None:
    trace["events"][1]["tokens"][0] ^= 1


def change_a_token_that_is_not_drawn_yet(trace: dict[str, Any], folder: Path) -> None:
    trace["events"][1]["tokens"][-1] = 1


def change_a_token_of_the_end(trace: dict[str, Any], folder: Path) -> None:
    trace["final_tokens"][35] ^= 1


def change_a_pixel(trace: dict[str, Any], folder: Path) -> None:
    path = folder / trace["final_image"]
    pixels = decode_picture(path.read_bytes()).copy()
    red = pixels[40, 50, 0]
    pixels[40, 50, 0] = red - 3 if red > 127 else red + 3
    Image.fromarray(pixels).save(path)
    assert np.array_equal(decode_picture(path.read_bytes()), pixels)


def drop_the_last_question(trace: dict[str, Any], folder: Path) -> None:
    del trace["events"][-2:]


def swap_a_verdict(trace: dict[str, Any], folder: Path) -> None:
    trace["events"][2] |= {"accept": False, "improved": "a red boat"}


@pytest.mark.parametrize(
    ("tamper", "num_equal", "place"),
    [
        (change_an_output_id, "9 of 10", "trace 0, call 3 (think) output_ids"),
        (change_a_token_of_a_canvas, "9 of 10", "trace 0, call 1 (canvas)"),
        (change_a_token_that_is_not_drawn_yet, "9 of 10", "trace 0, call 1 (canvas)"),
        (change_a_token_of_the_end, "10 of 10", "trace 0, final_tokens"),
        (change_a_pixel, "10 of 10", "trace 0, final_image"),
        (swap_a_verdict, "3 of 10", "trace 0, call 3 (think) input_ids"),
    ],
)
def test_whatever_differs_is_found_and_its_place_is_named(
    one_trace: Path,
    capsys: pytest.CaptureFixture[str],
    tamper: Tamper,
    num_equal: str,
    place: str,
):
    change_trace(one_trace, tamper)

    assert main([str(one_trace)]) == 1
    told = capsys.readouterr().out
    assert told.startswith(f"{num_equal} calls equal; first difference: {place}: ")


def test_a_call_that_the_golden_trace_does_not_have_is_found(
    one_trace: Path, capsys: pytest.CaptureFixture[str]
):
    change_trace(one_trace, drop_the_last_question)

    assert main([str(one_trace)]) == 1
    assert "first difference: trace 0, end: golden nothing, ours " in capsys.readouterr().out


def test_a_golden_folder_with_one_trace_is_equal_as_it_is(
    one_trace: Path, capsys: pytest.CaptureFixture[str]
):
    assert main([str(one_trace)]) == 0
    assert capsys.readouterr().out == "10 of 10 calls equal\n"
