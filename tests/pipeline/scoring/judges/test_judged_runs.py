"""Judges over a run: every one in a single pass, from what it kept to sidecars that join."""

from pathlib import Path

import pyarrow.parquet as pq

from pipeline.scoring.scorers import id_of
from pipeline.scoring.sidecars import score_together
from pipeline.store.open import open_store
from pipeline.store.runs import open_run, read_sidecar_notes
from schemas.config import Pictures
from tests.pipeline.scoring.judges.conftest import Checkpoints, loaded
from tests.support import fake_config, fake_method, plan_run, run_all


def test_all_judges_score_a_run_in_one_pass_whatever_pictures_it_kept(
    checkpoint: Checkpoints, tmp_path: Path
):
    judges = [
        loaded("pickscore", model=str(checkpoint("clip"))),
        loaded("detector", model=str(checkpoint("grounding_dino"))),
        loaded("git_vqa", model=str(checkpoint("git"))),
        loaded("blip_vqa", model=str(checkpoint("blip")), image_size=32, look="crop"),
        loaded("lmm_yes", model=str(checkpoint("qwen3_vl"))),
    ]
    tables = {}
    for kept in (Pictures.ALL, Pictures.NONE):
        store = open_store(str(tmp_path / kept.value))
        config = fake_config(fake_method(pictures=kept))
        run_all(store, plan_run(store, 2, config, rollouts_per_shard=2))
        run = open_run(store.url)

        score_together(store, run.objects[0], judges)

        for judge in judges:
            footers, columns = read_sidecar_notes(run, id_of(judge))
            path = Path(store.url) / "scores" / str(id_of(judge)) / "shard-00000.parquet"
            rows = pq.read_table(path).to_pylist()
            assert footers[0].num_rows == len(rows) > 0
            assert footers[0].settings is not None
            assert columns["outcome"] == "string"
            assert {row["outcome"] for row in rows} <= {"ok", "refused", "nothing_asked"}
            assert all((row["value"] is None) == (row["outcome"] != "ok") for row in rows)
            assert {row["event"] is None for row in rows} == {judge.name != "blip_vqa"}
            without_ids = [{k: v for k, v in row.items() if k != "trace_id"} for row in rows]
            assert tables.setdefault(judge.name, without_ids) == without_ids
    assert all(row["value"] is not None for row in tables["pickscore"])
