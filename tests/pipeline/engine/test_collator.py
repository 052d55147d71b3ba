"""Rows feed Hugging Face Janus: the loss is that of the tokens which the model itself drew."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import load_dataset
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import JanusForConditionalGeneration

from pipeline.engine.checkpoints import Janus, load_janus, resolve_checkpoint
from pipeline.engine.collator import Collator, janus_loss
from pipeline.engine.deepseek import janus_config
from pipeline.select.recipes import read_recipe
from pipeline.select.selection import open_curation
from pipeline.sets.write import write_set
from pipeline.store.objects import Store
from pipeline.store.open import open_store
from pipeline.store.runs import open_run
from pipeline.store.traces import read_rows
from schemas.errors import InputError
from tests.pipeline.conftest import grow_toy
from tests.pipeline.engine.test_geometries import (
    JANUS_PRO_1B,
    JANUS_PRO_7B,
    SHAPES,
    Published,
    deepseek_config,
)

CFG_WEIGHT = 0.1  # at 5 the toy is so sure that a loss without guidance would be 0 just as well
TASKS = [f"{role}_{region}" for role in ("think", "reflect", "draw") for region in (1, 2, 3)]
EVERYTHING = 'name = "all"\nsplit = { validation = 0 }'


@pytest.fixture(scope="module")
def janus() -> Janus:
    return load_janus(resolve_checkpoint("toy"), dtype=torch.float32, device="cpu")


@pytest.fixture(scope="module")
def rows(toy_run: Store, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    return all_rows(toy_run, tmp_path_factory.mktemp("sets"))


@pytest.fixture(scope="module")
def guided_run(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Drawn with both branches in play."""
    folder = tmp_path_factory.mktemp("guided")
    return open_store(
        grow_toy(
            folder, num_records=4, num_rollouts=1, cfg_weight=CFG_WEIGHT, image_temperature=1.5
        )
    )


def all_rows(run: Store, folder: Path) -> dict[str, list[Any]]:
    """Every row of every task, as `datasets` loads it."""
    out = folder / "all"
    recipe = read_recipe(EVERYTHING, origin="test")
    curation = open_curation([open_run(run.url)], recipe, folder)
    write_set(curation, open_store(str(out)))
    tasks = [path.name for path in (out / "sft").iterdir()]
    return {
        task: list(load_dataset(str(out), task, split="train", cache_dir=str(out / "cache")))
        for task in sorted(tasks)
    }


def recorded(run: Store, name: str) -> dict[str, list[float]]:
    """The log-probabilities of this name that the traces keep, by the names of events."""
    return {
        f"{trace['trace_id']}-{event['index']}": event[name]
        for shard in range(len(open_run(run.url).objects))
        for trace in read_rows(run, shard)
        for event in trace["events"]
    }


@pytest.mark.parametrize("task", TASKS)
def test_the_loss_of_a_row_is_what_the_trace_recorded(
    janus: Janus, toy_run: Store, rows: dict[str, list[Any]], task: str
):
    logps = recorded(toy_run, "logp_cond")
    collate = Collator.for_janus(janus, drop_share=0.0)
    for row in rows[task][:4]:
        with torch.no_grad():
            loss = janus_loss(janus.model, collate([row]))

        wanted = np.array(logps[row["id"]])
        assert len(wanted) == sum(label >= 0 for label in row["labels"])
        assert loss.item() == pytest.approx(-wanted.mean(), abs=1e-4)


@pytest.mark.parametrize("task", ["draw_1", "draw_2", "draw_3"])
def test_under_guidance_the_loss_of_a_drawing_is_that_of_how_it_was_sampled(
    janus: Janus, guided_run: Store, tmp_path: Path, task: str
):
    drawings = all_rows(guided_run, tmp_path)[task]
    logps = recorded(guided_run, "logp_sample")
    collate = Collator.for_janus(janus, as_sampled=True)
    with torch.no_grad():
        loss = janus_loss(janus.model, collate(drawings))
        plain = janus_loss(janus.model, Collator.for_janus(janus, drop_share=0.0)(drawings))

    wanted = -np.concatenate([logps[row["id"]] for row in drawings]).mean()
    assert loss.item() == pytest.approx(wanted, abs=1e-4)
    assert abs(plain.item() - wanted) > 0.01


def test_guidance_leaves_words_alone(janus: Janus, rows: dict[str, list[Any]]):
    drawing, thought = rows["draw_2"][0], rows["think_3"][0]
    guided, plain = Collator.for_janus(janus, as_sampled=True), Collator.for_janus(janus)
    with torch.no_grad():
        both, drawn, said = (
            janus_loss(janus.model, guided(batch)).item()
            for batch in ([drawing, thought], [drawing], [thought])
        )
        assert said == janus_loss(janus.model, plain([thought])).item()

    codes, words = (sum(label >= 0 for label in row["labels"]) for row in (drawing, thought))
    assert both == pytest.approx((codes * drawn + words * said) / (codes + words), abs=1e-5)


def test_a_mixed_batch_has_a_gradient_in_both_heads(janus: Janus, rows: dict[str, list[Any]]):
    batch = Collator.for_janus(janus)([rows["draw_2"][0], rows["think_3"][0], rows["think_1"][0]])
    with trainable(janus) as model:
        janus_loss(model, batch).backward()

        for head in (model.lm_head, model.model.generation_head, model.model.aligner):
            assert any(weight.grad.abs().sum() > 0 for weight in head.parameters())


def test_a_share_of_the_drawings_loses_its_text_and_nothing_else(
    janus: Janus, rows: dict[str, list[Any]]
):
    drawings = rows["draw_3"]
    plain = Collator.for_janus(janus, drop_share=0.0)(drawings)
    dropped = Collator.for_janus(janus, drop_share=1.0)(drawings)
    half = Collator.for_janus(janus, drop_share=0.5)
    first = half(drawings)["input_ids"]
    half.epoch = 1

    changed = plain["input_ids"] != dropped["input_ids"]
    assert (dropped["input_ids"][changed] == janus.special.pad).all()
    assert not (changed & dropped["modality_mask"]).any()
    for index, row in enumerate(drawings):
        start, stop = row["droppable_start"], row["droppable_stop"]
        assert changed[index].sum() == stop - start
        assert dropped["input_ids"][index, 0] == janus.special.bos
        assert dropped["input_ids"][index, stop] == janus.special.boi
    assert not torch.equal(first, half(drawings)["input_ids"])
    half.epoch = 0
    assert torch.equal(first, half(drawings)["input_ids"])


def test_a_row_without_its_picture_is_refused(janus: Janus, rows: dict[str, list[Any]]):
    with pytest.raises(InputError, match="--pictures all"):
        Collator.for_janus(janus)([rows["think_2"][0] | {"images": []}])


@pytest.mark.parametrize("published", [JANUS_PRO_1B, JANUS_PRO_7B], ids=["1B", "7B"])
def test_drawings_fit_the_published_geometries(published: Published):
    prefix, codes = [0, *range(50, 70), 100016], list(range(576))
    row = {
        "id": "some",
        "input_ids": prefix + codes,
        "labels": [-100] * (len(prefix) + 384) + codes[384:],
        "modality_mask": [0] * len(prefix) + [1] * 576,
        "droppable_start": 1,
        "droppable_stop": len(prefix) - 1,
    }
    batch = Collator(pad_id=100002, image_id=100581)([row, row])
    with FakeTensorMode() as mode:  # shapes alone, as on the meta device
        model = JanusForConditionalGeneration(janus_config(deepseek_config(published), SHAPES))
        fakes = {
            name: mode.from_tensor(value) if isinstance(value, torch.Tensor) else value
            for name, value in batch.items()
        }
        loss = janus_loss(model, fakes)
        loss.backward()

    assert loss.shape == ()
    assert model.model.generation_embeddings.weight.grad is not None


class trainable:
    """The model with gradients; as it was, afterwards."""

    def __init__(self, janus: Janus) -> None:
        self._model = janus.model

    def __enter__(self) -> Any:
        self._model.requires_grad_(True)
        return self._model

    def __exit__(self, *_: object) -> None:
        self._model.zero_grad()
        self._model.requires_grad_(False)
