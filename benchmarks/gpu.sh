#!/usr/bin/env bash
# One stage of the GPU benchmark: kernels (half a minute on an H200), 7b or 1b (more than four minutes
# and two; no run of them has come to its end yet). Each figure is shown and kept as it comes.
# Needs torch, transformers, Triton and Pillow, and nothing else of the project than the engine.
set -euo pipefail
cd "$(dirname "$0")/.."

exec "${PYTHON:-python3}" -m benchmarks.engine gpu "${1:?give a stage: kernels, 7b or 1b}" \
  --out "${OUT:-benchmarks/results}" "${@:2}"
