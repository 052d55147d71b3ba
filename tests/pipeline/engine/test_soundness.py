"""Numbers that are none: in weights, in logits, in features, in pages that others get next."""

import json
import re
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.engine.checkpoints import Janus, load_janus, resolve_checkpoint
from pipeline.engine.paged.cuda import paged_attention_plain
from pipeline.engine.reference import Reference
from pipeline.engine.sampling import Sampler
from pipeline.engine.soundness import check_model, check_weights
from pipeline.toy.model import write_early
from pipeline.twig.requests import Request, Text, Visual
from schemas.errors import InputError, RecordFailure
from tests.engines import (
    answered,
    drawing,
    engine_with,
    load_small,
    look,
    many_requests,
    question,
    sampled,
    tokens_of,
)

NAN, INF = float("nan"), float("inf")
POISON = "\x07"  # a word of one letter that no other request has

Backends = Callable[[Janus], Any]
REFERENCE: Backends = Reference
STRICT: Backends = engine_with
FAST: Backends = partial(engine_with, strict=False)
COMPILED: Backends = partial(engine_with, strict=False, compile=True)


@pytest.fixture(autouse=True)
def without_triton_and_inductor(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel interpreted takes minutes, and so does a true compiler."""
    eager = partial(torch.compile, backend="eager")
    monkeypatch.setattr("pipeline.engine.paged.cuda.torch.compile", eager)
    monkeypatch.setattr(
        "pipeline.engine.paged.cuda.choose_attention", lambda _: paged_attention_plain
    )


@pytest.fixture
def janus(small_folder: Path) -> Janus:
    """Of its own: to be spoiled."""
    return load_small(small_folder)


def poison_word(janus: Janus, value: float = NAN) -> None:
    word = janus.tokenizer.encode(POISON, add_special_tokens=False)
    janus.model.get_input_embeddings().weight.data[word[0], 3] = value


def poison_code(janus: Janus, code: int) -> None:
    janus.model.model.generation_embeddings.weight.data[code] = NAN


def assert_not_finite(answer: Any, token: int | None = None) -> None:
    assert isinstance(answer, RecordFailure), answer
    assert answer.reason == "not_finite"
    if token is not None:
        assert f"the logits of token {token} " in str(answer)


everywhere = pytest.mark.parametrize(
    "open_backend", [REFERENCE, STRICT, FAST], ids=["reference", "strict", "fast"]
)
engines = pytest.mark.parametrize("open_engine", [STRICT, FAST], ids=["strict", "fast"])


# What was asked


POISONED = [
    question(f"What is {POISON}?"),
    question(f"Why {POISON}?", **sampled(3, top_p=0.5)),
    look(f"Is it {POISON}?", (1, 2, 3)),
    drawing(f"a red {POISON}"),
    drawing(f"{POISON}", codes=(12, 13), **sampled(6)),
    drawing(f"a {POISON}", **sampled(6, cfg_weight=0.0)),
]


@everywhere
@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_what_is_asked_with_a_broken_word_fails_and_says_why(
    janus: Janus, open_backend: Backends, value: float
):
    poison_word(janus, value)

    for answer in answered(open_backend(janus), *POISONED):
        assert_not_finite(answer, token=0)


@engines
def test_the_neighbours_of_a_broken_row_answer_as_ever(
    janus: Janus, small: Janus, open_engine: Backends
):
    sound = many_requests()
    expected = [answered(open_engine(small), request)[0] for request in sound]
    poison_word(janus)
    mixed: list[Request] = [*POISONED, *sound, *POISONED]
    engine = open_engine(janus)

    answers = answered(engine, *mixed)

    for answer, request in zip(answers, mixed, strict=True):
        if request in POISONED:
            assert_not_finite(answer)
    ours = answers[len(POISONED) : -len(POISONED)]
    assert [tokens_of(a) for a in ours] == [tokens_of(answer) for answer in expected]
    if engine.is_strict:
        assert ours == expected
    engine.forget()
    assert engine.num_free_pages == engine.num_pages


@pytest.mark.slow
def test_compiled_steps_carry_the_evidence_as_well(janus: Janus, small: Janus):
    expected = answered(COMPILED(small), question(), drawing())
    poison_word(janus)

    broken, *sound = answered(COMPILED(janus), question(POISON), question(), drawing())

    assert_not_finite(broken, token=0)
    assert [tokens_of(a) for a in sound] == [tokens_of(answer) for answer in expected]


@engines
@pytest.mark.parametrize("num_pages", [20, 40])
def test_pages_of_a_broken_row_do_no_harm_to_those_who_get_them_next(
    janus: Janus, small: Janus, open_engine: Backends, num_pages: int
):
    sound = [question("x" * 90, max_tokens=60), drawing("a hill", num_tokens=16), *many_requests()]
    expected = [answered(open_engine(small), request)[0] for request in sound]
    poison_word(janus)
    engine = open_engine(janus, num_pages=num_pages)

    for _ in range(2):
        broken = answered(engine, question(POISON * 100, max_tokens=100), *POISONED)
        after = answered(engine, *sound)

        assert {type(answer) for answer in broken} == {RecordFailure}
        assert [tokens_of(a) for a in after] == [tokens_of(answer) for answer in expected]


@engines
def test_a_broken_question_does_not_spoil_another_about_the_same_picture(
    janus: Janus, small: Janus, open_engine: Backends
):
    canvas = tuple(range(100, 116))
    fine = [look(f"{n}, is it?", canvas, **sampled(n)) for n in range(3)]
    expected = [answered(open_engine(small), request)[0] for request in fine]
    poison_word(janus)
    engine = open_engine(janus)

    for _ in range(2):
        broken, *ours = answered(engine, look(POISON, canvas), *fine)

        assert_not_finite(broken)
        assert [tokens_of(a) for a in ours] == [tokens_of(answer) for answer in expected]


@everywhere
def test_a_broken_unconditional_row_fails_its_drawing_and_no_text(
    janus: Janus, small: Janus, open_backend: Backends
):
    janus.model.get_input_embeddings().weight.data[janus.special.pad] = NAN
    requests = [drawing(), question(), drawing("", num_tokens=3), look("Is it?", (1, 2))]

    answers = answered(open_backend(janus), *requests)

    assert_not_finite(answers[0], token=0)
    # Between its two special tokens an empty text has nothing to be padded.
    texts = [answers[1], answers[3]]
    expected = answered(open_backend(small), question(), look("Is it?", (1, 2)))
    assert [tokens_of(text) for text in texts] == [tokens_of(text) for text in expected]


@engines
def test_all_who_wait_for_one_answer_are_told_that_it_failed(janus: Janus, open_engine: Backends):
    poison_word(janus)
    engine = open_engine(janus)

    for answer in answered(engine, *[question(POISON)] * 3):
        assert_not_finite(answer)
    assert_not_finite(answered(engine, question(POISON))[0])


# In the middle of an answer


@everywhere
@pytest.mark.parametrize("position", [0, 3, 6, 10])
def test_an_answer_that_breaks_midway_fails_at_that_token(
    janus: Janus, open_backend: Backends, position: int
):
    request = drawing(num_tokens=16, **sampled(5))
    (sound,) = answered(open_backend(janus), request)
    code = sound.codes[position]
    poison_code(janus, code)

    (broken,) = answered(open_backend(janus), request)

    assert_not_finite(broken, token=sound.codes.index(code) + 1)


@everywhere
def test_what_comes_after_the_end_of_an_answer_is_no_part_of_it(
    janus: Janus, open_backend: Backends
):
    request, other = drawing(num_tokens=7, **sampled(5)), drawing("a hill", **sampled(9))
    sound, next_sound = answered(open_backend(janus), request, other)
    last = sound.codes[-1]
    assert last not in (*sound.codes[:-1], *next_sound.codes[:-1])
    poison_code(janus, last)
    backend = open_backend(janus)

    for _ in range(3):  # in pages that were written beyond the end of the answer before
        ours = answered(backend, request, other)
        assert [answer.codes for answer in ours] == [sound.codes, next_sound.codes]


@everywhere
def test_a_text_that_ends_before_a_broken_word_is_whole(janus: Janus, open_backend: Backends):
    requests = [question(f"{number}?", **sampled(number)) for number in range(12)]
    sound = answered(open_backend(janus), *requests)
    assert {answer.finish.value for answer in sound} == {"stop", "length"}
    janus.model.get_input_embeddings().weight.data[janus.special.eos] = NAN

    assert answered(open_backend(janus), *requests) == sound


# Overflow, and what is none


@everywhere
def test_a_sound_model_that_overflows_is_noticed(small_folder: Path, open_backend: Backends):
    janus = load_janus(small_folder, dtype=torch.bfloat16, device="cpu")
    janus.model.lm_head.weight.data[70] = 3e38  # finite, and every sum of two of them is not
    check_weights(janus.model, small_folder)

    text, drawn = answered(open_backend(janus), question(), drawing())

    assert_not_finite(text, token=0)
    assert len(drawn.codes) == 12


@everywhere
def test_small_numbers_and_negative_zeros_are_numbers(janus: Janus, open_backend: Backends):
    words = janus.model.get_input_embeddings().weight.data
    words[70], words[71] = 1e-42, -0.0
    janus.model.model.generation_embeddings.weight.data[5] = -0.0
    janus.model.lm_head.weight.data[80] = -1e-44

    answers = answered(open_backend(janus), *many_requests())

    assert not [answer for answer in answers if isinstance(answer, RecordFailure)]


def test_evidence_is_finite_where_top_p_drops_words():
    requests: list[Text | Visual] = [question(**sampled(1, top_p=0.1)), question()]
    sampler = Sampler(requests, [0, 0], torch.device("cpu"))
    logits = torch.randn(2, 50)
    sampler.words(logits)
    sampler.words(logits.index_fill(1, torch.tensor([7]), -INF))

    for first, second in sampler.evidence():
        assert torch.tensor(first).isfinite()
        assert not torch.tensor(second).isfinite()


# Pictures


@everywhere
@pytest.mark.parametrize("value", [NAN, INF])
def test_a_broken_vision_tower_fails_what_is_said_of_pictures_alone(
    janus: Janus, small: Janus, open_backend: Backends, value: float
):
    janus.model.model.vision_model.post_layernorm.weight.data[1] = value
    requests = [look("Is it?", (1, 2)), question(), drawing(), look("Is it?", (1, 2), (3,))]

    seen, said, drawn, twice = answered(open_backend(janus), *requests)

    assert_not_finite(seen, token=0)
    assert_not_finite(twice, token=0)
    expected = answered(open_backend(small), question(), drawing())
    assert [tokens_of(said), tokens_of(drawn)] == [tokens_of(answer) for answer in expected]


@everywhere
def test_a_canvas_without_pixels_is_not_painted_black(
    janus: Janus, small: Janus, open_backend: Backends
):
    janus.model.model.vqmodel.quantize.embedding.weight.data[7] = NAN
    backend = open_backend(janus)

    with pytest.raises(RecordFailure, match="pixels of a canvas") as failure:
        backend.paint([(1, 2), (7, 1)])
    broken, sound = answered(backend, look("Is it?", (7, 1)), look("Is it?", (1, 2)))

    assert failure.value.reason == "not_finite"
    assert_not_finite(broken, token=0)
    (expected,) = answered(open_backend(small), look("Is it?", (1, 2)))
    assert tokens_of(sound) == tokens_of(expected)
    assert (backend.paint([(1, 2)])[0] == open_backend(small).paint([(1, 2)])[0]).all()


# Weights, when they are read


def spoil(folder: Path, tmp_path: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> Path:
    """A copy of a model with other weights."""
    copy = Path(shutil.copytree(folder, tmp_path / "spoilt"))
    weights = load_file(copy / "model.safetensors")
    change(weights)
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    return copy


def weights_problem(folder: Path, dtype: torch.dtype = torch.float32) -> str:
    """What is said of the weights of a model; empty: nothing."""
    try:
        check_weights(load_janus(folder, dtype=dtype, device="cpu").model, folder)
    except InputError as error:
        return str(error)
    return ""


Q_PROJ = "model.language_model.layers.0.self_attn.q_proj.weight"


@pytest.mark.parametrize(
    ("name", "place", "value", "problem"),
    [
        ("lm_head.weight", (70,), INF, "not finite"),
        ("lm_head.weight", (3, 4), -INF, "not finite"),
        ("model.generation_head.vision_head.weight", ..., NAN, "not finite"),
        ("model.aligner.fc1.bias", (2,), NAN, "not finite"),
        ("model.vqmodel.encoder.conv_in.weight", (0, 0), NAN, "not finite"),
        ("model.vqmodel.quantize.embedding.weight", (9,), NAN, "not finite"),
        ("lm_head.weight", ..., 0.0, "nothing but 0"),
        ("lm_head.weight", ..., -0.0, "nothing but -?0"),
        ("model.generation_head.proj_out.weight", ..., 0.0, "nothing but 0"),
        ("model.generation_embeddings.weight", ..., 1.0, "nothing but 1"),
        (Q_PROJ, ..., 0.0, "nothing but 0"),
        ("model.language_model.norm.weight", ..., 0.0, "nothing but 0"),
        ("model.vqmodel.decoder.conv_out.weight", ..., 0.0, "nothing but 0"),
    ],
)
def test_broken_weights_are_refused_by_name_and_file(
    small_folder: Path, tmp_path: Path, name: str, place: Any, value: float, problem: str
):
    folder = spoil(small_folder, tmp_path, lambda weights: weights[name].__setitem__(place, value))

    said = weights_problem(folder)

    assert said.count(f"{name} of model.safetensors holds ") == 1
    assert re.search(problem, said)
    assert "a weight is broken in" in said
    assert "coppice plan" in said


@pytest.mark.parametrize(
    ("name", "place", "value"),
    [
        ("model.aligner.fc1.bias", ..., 0.0),
        ("model.language_model.layers.0.self_attn.o_proj.weight", ..., 0.0),
        ("model.vqmodel.decoder.mid.block_1.conv2.weight", ..., 0.0),
        ("model.vqmodel.encoder.conv_in.weight", ..., 0.0),
        ("model.language_model.embed_tokens.weight", (1,), 0.0),
        ("lm_head.weight", ..., -1e-42),
        ("lm_head.weight", (slice(None), 0), 3e38),  # their sum is infinite, they are not
    ],
)
def test_weights_that_may_be_so_are_taken(
    small_folder: Path, tmp_path: Path, name: str, place: Any, value: float
):
    def change(weights: dict[str, torch.Tensor]) -> None:
        weights[name][place] = value
        weights["lm_head.weight"][5, 5] = 2e-42

    assert weights_problem(spoil(small_folder, tmp_path, change)) == ""


def test_weights_that_overflow_in_the_dtype_asked_for_are_refused(
    small_folder: Path, tmp_path: Path
):
    def change(weights: dict[str, torch.Tensor]) -> None:
        weights[Q_PROJ][0, 0] = 3.4e38

    folder = spoil(small_folder, tmp_path, change)

    assert weights_problem(folder) == ""
    assert f"{Q_PROJ} of model.safetensors holds numbers that are not finite (as bfloat16)" in (
        weights_problem(folder, torch.bfloat16)
    )


def test_of_many_broken_weights_some_are_named_with_their_files(small_folder: Path, tmp_path: Path):
    folder = Path(shutil.copytree(small_folder, tmp_path / "sharded"))
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    for name in weights:
        weights[name] = weights[name] * NAN
    parts = {"a.safetensors": dict(list(weights.items())[::2]), "b.safetensors": {}}
    parts["b.safetensors"] = {k: v for k, v in weights.items() if k not in parts["a.safetensors"]}
    for file, part in parts.items():
        save_file(part, folder / file, metadata={"format": "pt"})
    weight_map = {name: file for file, part in parts.items() for name in part}
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))

    said = weights_problem(folder)

    assert f"{len(weights)} weights are broken" in said
    assert said.count(".safetensors holds ") == 3
    assert " of a.safetensors holds" in said


@pytest.mark.parametrize("name", ["toy", "tiny", "early", "golden"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_models_that_ship_are_sound(name: str, dtype: torch.dtype, tmp_path: Path):
    folder = tmp_path / "early"
    if name == "early":
        write_early(folder)
    elif name == "golden":
        folder = Path(__file__).parents[2] / "golden" / "janus-tiny"
    else:
        folder = resolve_checkpoint(name)

    assert weights_problem(folder, dtype) == ""


def test_a_model_that_is_not_what_was_asked_for_is_refused(small_folder: Path):
    model = load_janus(small_folder, dtype=torch.bfloat16, device="cpu").model
    check_model(model, dtype=torch.bfloat16, device="cpu")

    with pytest.raises(InputError, match=r"on cpu of torch.float32 .* on cpu of torch.bfloat16"):
        check_model(model, dtype=torch.float32, device="cpu")
    with pytest.raises(InputError, match="a model on cuda of"):
        check_model(model, dtype=torch.bfloat16, device="cuda")
    model.lm_head.weight.data = model.lm_head.weight.data.float()
    with pytest.raises(InputError, match=r"torch.bfloat16\+torch.float32"):
        check_model(model, dtype=torch.bfloat16, device="cpu")
    model.lm_head = torch.nn.Linear(32, 4, bias=False, dtype=torch.bfloat16)
    with pytest.raises(InputError, match=r"with [\d,]+ parameters, and loaded"):
        check_model(model, dtype=torch.bfloat16, device="cpu")
