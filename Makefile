# `make run` and `make test` need nothing but Python 3.11 and pip.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
RUN ?= runs/first
# In the order of tests/conftest.py: those that start Rays begin, since they are the longest chain.
# They wait so much that two cores have room for two more workers.
PARALLEL := -n 3 --dist loadgroup --no-loadscope-reorder

# Hundreds of processes import the same modules: they are compiled once, whatever the shell says.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: run test slow test-vllm test-browser test-docs test-consumers test-all chaos check format bench clean

run: $(VENV)/ready  ## the main job, on this machine, with the bundled prompts and model
	$(BIN)/coppice run examples/toy.jsonl $(RUN) --config examples/first-run.toml --shard-rollouts 8
	$(BIN)/coppice show $(RUN) --sheet $(RUN)/contact-sheet.png

test: $(VENV)/ready  ## the tests: the main path on a real Ray, S3 over the wire, the toy, and all else that is quick
	$(BIN)/python -m pytest $(PARALLEL)

slow: $(VENV)/ready  ## what takes minutes: cuts of the fault suite, the toy's training, a real S3 server
	$(BIN)/python -m pytest -m slow $(PARALLEL)
	$(BIN)/python -m pytest $(PARALLEL) --s3 real tests/pipeline/store tests/s3 tests/faults

test-consumers: $(VENV)/ready  ## every trainer that our exports name, in an environment of its own (see docs/train.md)
	$(BIN)/python -m tests.consumers

test-browser: $(VENV)/ready  ## the gallery's page in Chromium, which apt-get install chromium brings
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,browser]'
	$(BIN)/python -m pytest -m browser tests/browser

test-vllm: $(VENV)/ready  ## runs with a real vLLM on this machine's CPU; its environment goes to .vllm, 2.5 GB
	$(BIN)/python -m tests.vllm.environment
	$(BIN)/python -m pytest -m vllm tests/vllm

test-all:  ## everything there is, part by part, each with its time
	@for part in check test slow test-docs test-vllm test-browser test-consumers chaos; do \
	  begun=$$(date +%s); $(MAKE) --no-print-directory $$part || exit 1; \
	  echo "make $$part: $$(($$(date +%s) - begun)) s"; \
	done

chaos: $(VENV)/ready  ## the fault suite: hundreds of faults, and nothing lost, doubled or wrong
	$(BIN)/python -m tests.chaos --real

test-docs: $(VENV)/ready  ## every command of README and docs, typed in a clean clone
	$(BIN)/python -m tests.docs

check: $(VENV)/ready  ## formatter, linter, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check --no-cache .
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
