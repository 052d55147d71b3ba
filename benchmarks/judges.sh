#!/usr/bin/env bash
# Judges of the published sizes on a GPU, with random weights: no run of them has been made yet.
# Needs torch, transformers, Pillow and pydantic, pyarrow beside them. Figures come one by one.
set -euo pipefail
cd "$(dirname "$0")/.."

exec "${PYTHON:-python3}" -m benchmarks.judges --size "${SIZE:-published}" \
  --dtype "${DTYPE:-bfloat16}" --out "${OUT:-benchmarks/results}" "$@"
