#!/usr/bin/env bash
# One stage of the GPU benchmark: kernels, 7b or 1b; each takes under 8 minutes on an H200.
# Needs torch, transformers, Triton and Pillow, and nothing else of the project than the engine.
set -euo pipefail
cd "$(dirname "$0")/.."

exec "${PYTHON:-python3}" -m benchmarks.engine gpu "${1:?give a stage: kernels, 7b or 1b}" \
  --out "${OUT:-benchmarks/results}" "${@:2}"
