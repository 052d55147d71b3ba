# `make run` and `make test` need nothing but Python 3.11 and pip.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
RUN ?= runs/first

.PHONY: run test chaos s3 check format bench clean

run: $(VENV)/ready  ## the main job, on this machine, with the bundled prompts and model
	$(BIN)/coppice run examples/toy.jsonl $(RUN) --shard-rollouts 8 --pictures all
	$(BIN)/coppice show $(RUN) --sheet $(RUN)/contact-sheet.png

test: $(VENV)/ready  ## every test
	$(BIN)/python -m pytest

chaos: $(VENV)/ready  ## the fault suite: hundreds of faults, and nothing lost, doubled or wrong
	$(BIN)/python -m tests.chaos --real

s3: $(VENV)/ready  ## what touches storage, against a real S3 server: Ceph, from Debian's packages
	$(BIN)/python -m pytest --s3 real tests/pipeline/store tests/s3 tests/faults

check: $(VENV)/ready  ## formatter, linter, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/ready
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/ready  ## the pipeline without a model, and the engine against the plain loop
	$(BIN)/python -m benchmarks.pipeline
	$(BIN)/python -m benchmarks.engine cpu

# One stamp for the whole environment. A build that was cut off leaves no stamp and is done again.
$(VENV)/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
