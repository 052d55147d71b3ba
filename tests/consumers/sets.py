"""Sets of all kinds, in all forms, of small runs of the toy: what the consumers are given."""

import json
from pathlib import Path

from pipeline.select.recipes import read_recipe
from pipeline.select.selection import open_curation
from pipeline.sets.exports import exports_of
from pipeline.sets.write import write_set
from pipeline.store.open import open_store
from pipeline.store.runs import open_run
from schemas.recipes import SetKind
from tests.pipeline.conftest import grow_toy, score

_PARTS = {
    SetKind.SFT: "",
    SetKind.PREFERENCE: '[pairs]\nby = "tokens.entropy"',
    SetKind.GRPO: '[groups]\nrewards = ["tokens.entropy"]',
}


def write_sets(folder: Path) -> None:
    """`sft`, `preference` and `grpo` below a folder, beside their runs.

    The drawings to be learned were sampled under guidance at temperature 1, which all consumers
    know; those of groups without it and warmer, so that rollouts were revised more or less often.
    """
    sampled = {
        "plain": {"num_records": 4, "num_rollouts": 1, "cfg_weight": 2.0, "image_temperature": 1.0},
        "warm": {"num_records": 6, "num_rollouts": 4, "cfg_weight": 1.0, "image_temperature": 2.0},
    }
    for name, settings in sampled.items():
        (folder / name).mkdir(parents=True)
        run = grow_toy(folder / name, text_temperature=0.8, **settings)
        score(open_store(run), "tokens")
        for kind, part in _PARTS.items():
            if (kind is SetKind.SFT) == (name == "plain"):
                head = f'name = "consumers: [1]"\nkind = "{kind}"\nscorers = ["tokens@1"]\n'
                exports = f"exports = {json.dumps(exports_of(kind))}\n"
                recipe = read_recipe(f"{head}{exports}{part}", origin="consumers")
                curation = open_curation([open_run(run)], recipe, Path())
                write_set(curation, open_store(str(folder / kind.value)))
