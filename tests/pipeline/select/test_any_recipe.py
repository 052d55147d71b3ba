"""Any recipe that the schema accepts makes a set that follows from the runs, or is refused;
nothing else comes of it.

Recipes are drawn from all that the schema knows, with values at its edges, and columns of every
kind at every place.
"""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.select.judge import with_judge
from pipeline.select.recipe_columns import FIELDS
from pipeline.select.selection import open_curation
from pipeline.sets.exports import exports_of
from pipeline.sets.write import write_set
from pipeline.store.objects import Store
from pipeline.store.open import open_store
from pipeline.store.runs import open_run
from schemas.config import FakeConfig, Pictures
from schemas.errors import InputError
from schemas.recipes import Recipe, SetKind
from tests.pipeline.conftest import score
from tests.recompute.__main__ import problems
from tests.support import fake_config, fake_method, plan_run, run_all

# Where files wait for no disk, if there is such a place.
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
SCORERS = ("tokens", "phash", "own_critic", "thoughts", "tests.pipeline.select.test_judge:Own")
FAKE = FakeConfig(
    image_size=32, patch_size=8, num_codes=16, num_text_tokens=4, unparseable_share=0.3
)

FIELD_NAMES = [f"{source}.{name}" for source, names in FIELDS.items() for name in names]
SCORES = ("tokens.value", "tokens.entropy", "own_critic.value", "thoughts.value", "judge.value")
ODD = ("phash.hash", "own.words", "judge.other", "tokens.none", "trace.none", "none", ".", "")
COLUMNS = st.one_of(
    st.sampled_from(SCORES), st.sampled_from(SCORES), st.sampled_from((*FIELD_NAMES, *ODD))
)
NUMBERS = st.one_of(
    st.sampled_from((0, 1, -1, 0.5, 1e-310, -1e308, 1.7e308, 5e-324, 2**80)), st.floats(width=32)
)
WHOLE = st.sampled_from((0, 1, 2, 3, 64, 65, 2**31, 2**63, 2**64, 10**30, -1))
TASKS = st.lists(
    st.sampled_from(("think", "reflect", "draw", "think_1", "draw_3", "reflect_2", "draw_99")),
    max_size=3,
)
WORDS = st.sampled_from(("", "a", "think", "kept", "not_scored", "near_duplicate", "x" * 300, "\n"))
AGGREGATES = st.sampled_from(("mean", "sum", "min", "group_zscore_mean", "category_quantile_mean"))


def table(needed: Mapping[str, Any], **optional: st.SearchStrategy[Any]) -> Any:
    return st.fixed_dictionaries(dict(needed), optional=optional)


FILTERS = table(
    {"column": COLUMNS},
    of=st.sampled_from(("trace", "event", "drawing")),
    min=NUMBERS,
    max=NUMBERS,
    equals=WORDS,
    null=st.sampled_from(("drop", "keep")),
    tasks=TASKS,
    reason=WORDS,
)
POOLS = st.sampled_from(("think", "reflect", "draw", "think_1", "draw_1"))
JUDGES = st.lists(
    st.sampled_from(("tokens", "tokens@1", "tokens.entropy", "own.words", "phash.hash", "own")),
    max_size=3,
)
TABLES: Mapping[str, Mapping[str, st.SearchStrategy[Any]]] = {
    "sft": {
        "tasks": TASKS,
        "agreement": table(
            {"by": COLUMNS, "accept_min": NUMBERS, "revise_max": NUMBERS},
            gain_min=NUMBERS,
            balance=st.booleans(),
        ),
        "per_prompt": table(
            {},
            keep=WHOLE,
            by=COLUMNS,
            min_distance=WHOLE,
            hash=st.one_of(COLUMNS, st.just("phash.hash")),
        ),
        "mix": table(
            {},
            weights=st.dictionaries(POOLS, NUMBERS, max_size=3),
            counts=st.dictionaries(POOLS, WHOLE, max_size=2),
            max_rows=WHOLE,
            regions=st.sampled_from(("lot", "equal")),
        ),
    },
    "preference": {
        "pairs": table(
            {"by": COLUMNS},
            sources=st.lists(st.sampled_from(("revision", "group")), max_size=3),
            min_margin=NUMBERS,
        )
    },
    "grpo": {
        "groups": table(
            {"rewards": st.lists(COLUMNS, max_size=3)},
            aggregate=AGGREGATES,
            picture_only=st.just(True),
            drop_zero_variance=st.booleans(),
            max_dead=WHOLE,
        )
    },
}


@st.composite
def recipes(draw: st.DrawFn) -> dict[str, Any]:
    """A recipe as TOML has it, good or not: of few tables, so that some are good."""
    kind = draw(st.sampled_from(tuple(TABLES)))
    tables = TABLES[kind]
    wanted = draw(st.sets(st.sampled_from(tuple(tables)), min_size=kind != "sft", max_size=2))
    recipe: dict[str, Any] = {
        "name": draw(WORDS),
        "kind": kind,
        "scorers": ["tokens@1", "phash@1", "own_critic@1", "thoughts@1", "own@2.1"],
        "judge": {"scorers": ["tokens.entropy"], "held_out": []},
    }
    recipe |= {name: draw(tables[name]) for name in sorted(wanted)}
    more = {
        "seed": WHOLE,
        "pictures": st.sampled_from(("required", "tokens")),
        "filters": st.lists(FILTERS, min_size=1, max_size=2),
        "judge": table({}, scorers=JUDGES, held_out=JUDGES, aggregate=AGGREGATES),
        "decontamination": table(
            {},
            files=st.lists(st.sampled_from(("val.jsonl", "none.txt", "")), max_size=2),
            column=st.sampled_from(("caption", "prompt", "")),
            levels=st.lists(st.sampled_from(("L0", "L1", "L2", "L3")), max_size=4),
        ),
        "split": table({}, validation=st.one_of(NUMBERS, st.just(0.9999))),
        "exports": st.lists(st.sampled_from(exports_of(SetKind(kind))), max_size=1),
    }
    further = draw(st.sets(st.sampled_from(tuple(more)), max_size=2))
    return recipe | {name: draw(more[name]) for name in sorted(further)}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """3 records of 2 rollouts in 2 shards, scored."""
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "val.jsonl").write_text('{"caption":"prompt number 1"}\n')
    store = open_store(str(folder / "run"))
    config = fake_config(fake_method(FAKE, pictures=Pictures.ALL))
    run_all(store, plan_run(store, 3, config, rollouts_per_record=2, rollouts_per_shard=3))
    score(store, *SCORERS)
    return store


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(told=recipes())
def test_a_recipe_makes_a_set_or_is_refused(tiny: Store, told: dict[str, Any]):
    with suppress(ValidationError, InputError), TemporaryDirectory(dir=MEMORY) as out:
        recipe = with_judge(Recipe.model_validate(told), ())
        curation = open_curation([open_run(tiny.url)], recipe, Path(tiny.url).parent)
        manifest = write_set(curation, open_store(out))
        event("a set")
        assert all(stream.num_rows for stream in manifest.files.values())
        assert manifest.files
        run, val = Path(tiny.url), Path(tiny.url).parent / "val.jsonl"
        assert not list(problems(Path(out), [run], [val] if manifest.inputs.evaluation else []))
