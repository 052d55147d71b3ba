"""The GPU benchmark's dry run: the same code in small, on a CPU, with the kernel interpreted."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def dry_run(stage: str, folder: Path) -> dict[str, Any]:
    environment = os.environ | {"PYTHON": sys.executable, "OUT": str(folder)}
    answer = subprocess.run(
        [ROOT / "benchmarks" / "gpu.sh", stage, "--dry-run"],
        env=environment | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    result: dict[str, Any] = json.loads(answer.stdout.splitlines()[-1])
    assert json.loads((folder / f"engine-{stage}.json").read_text()) == result
    return result


@pytest.mark.slow
def test_the_kernels_stage_compares_the_kernel_with_its_oracle(tmp_path: Path):
    result = dry_run("kernels", tmp_path)

    assert result["decode_attention_largest_difference"] < 1e-5
    assert result["decode_attention_share_of_copy"] >= 0


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["1b", "7b"])
def test_a_model_stage_measures_both_mixes_and_the_plain_loop(stage: str, tmp_path: Path):
    result = dry_run(stage, tmp_path)

    for mix in ("no_reflection", "half_revised"):
        assert result[f"{mix}_rollouts_per_second"] > 0
        parts = [result[f"{mix}_{part}_share"] for part in ("prefill", "decode", "vision", "host")]
        assert sum(parts) == pytest.approx(1, abs=0.01)
    assert result["plain_loop_third_revised_rollouts_per_second"] > 0


def test_nothing_is_imported_that_a_bare_gpu_machine_may_lack():
    code = "import sys, benchmarks.engine; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()

    assert "torch" in loaded
    assert not {"ray", "pydantic", "pyarrow", "boto3", "typer", "rich"} & set(loaded)
