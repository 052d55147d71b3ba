"""Sets of all kinds, in all forms, of small runs of the toy: what the consumers are given."""

import json
from pathlib import Path
from typing import Any

from pipeline.select.recipes import read_recipe
from pipeline.select.selection import open_curation
from pipeline.sets.exports import exports_of
from pipeline.sets.write import write_set
from pipeline.store.open import open_store
from pipeline.store.runs import open_run
from schemas.config import Pictures
from schemas.recipes import SetKind
from tests.pipeline.conftest import grow_toy, score
from tests.support import fake_config, fake_method, plan_run, run_all

_PARTS = {
    SetKind.SFT: "",
    SetKind.PREFERENCE: '[pairs]\nby = "tokens.entropy"',
    SetKind.GRPO: '[groups]\nrewards = ["tokens.entropy"]',
}


def write_sets(folder: Path) -> None:
    """`sft`, `preference` and `grpo` below a folder, beside their runs.

    The drawings to be learned were sampled under guidance at temperature 1, which all consumers
    know; those of groups without it and warmer, so that rollouts were revised more or less often.
    The toy says the same of a prompt every time; pairs are of the fake, which does not.
    """
    plain = {"num_records": 4, "num_rollouts": 1, "cfg_weight": 2.0, "image_temperature": 1.0}
    warm = {"num_records": 6, "num_rollouts": 4, "cfg_weight": 1.0, "image_temperature": 2.0}
    fake = open_store(str(folder / "fake"))
    config = fake_config(fake_method(pictures=Pictures.ALL))
    run_all(fake, plan_run(fake, 24, config, rollouts_per_record=2, rollouts_per_shard=8))
    runs = {
        SetKind.SFT: grow(folder / "plain", plain),
        SetKind.GRPO: grow(folder / "warm", warm),
        SetKind.PREFERENCE: fake.url,
    }
    for kind, run in runs.items():
        score(open_store(run), "tokens")
        head = f'name = "consumers: [1]"\nkind = "{kind}"\nscorers = ["tokens@1"]\n'
        exports = f"exports = {json.dumps(exports_of(kind))}\n"
        recipe = read_recipe(f"{head}{exports}{_PARTS[kind]}", origin="consumers")
        curation = open_curation([open_run(run)], recipe, Path())
        write_set(curation, open_store(str(folder / kind.value)))


def grow(folder: Path, settings: dict[str, Any]) -> str:
    folder.mkdir(parents=True)
    return grow_toy(folder, text_temperature=0.8, **settings)
