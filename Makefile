# Every target sets up what it needs. `make` alone lists them.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# An extra index for CPU wheels of torch, e.g. TORCH_INDEX=https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=
PIP_ARGS := --disable-pip-version-check -q -c constraints.txt $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))

.DEFAULT_GOAL := help
.PHONY: help install run test lint types board clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 10

install: $(VENV)/installed ## make .venv with everything that running and testing need

# First the runtime, then the test tools: some of those ask for packages without bounds, and must find torch in place.
$(VENV)/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install $(PIP_ARGS) -e .
	$(BIN)/python -m pip install $(PIP_ARGS) -e '.[dev]'
	touch $@

run: install ## the main job: data, training, evaluation, leaderboard (about 7 minutes on 2 cores)
	$(BIN)/python run.py model=fno dataset=ns2d

test: install ## all tests
	$(BIN)/python -m pytest -q

lint: install ## style and import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: install ## static types
	$(BIN)/pyright

board: install ## rewrite the committed leaderboard from leaderboard/records
	$(BIN)/python -m neuralop_bench.leaderboard leaderboard -o leaderboard

clean: ## remove the environment and caches; data and outputs stay
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
