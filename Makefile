# Every target sets up what it needs. `make` alone lists them.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# An extra index for CPU wheels of torch, e.g. TORCH_INDEX=https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=
# Python compiles a module when it is first imported; to compile all of them here takes longer than all the rest.
PIP_ARGS := --disable-pip-version-check --no-compile -q -c constraints.txt $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
# Where runs keep generated datasets (paths.data).
DATA ?= data
# More words for the sweep of the board, e.g. BOARD_ARGS=hydra/launcher=joblib, or BOARD_ARGS='dataset=ns2d seed=0'.
BOARD_ARGS ?=
# Where the environment tells Python not to keep compiled modules, each process would compile all of torch: 10 seconds.
unexport PYTHONDONTWRITEBYTECODE
HEX8 := [0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f]

.DEFAULT_GOAL := help
.PHONY: help install tools hooks cluster-packages browser-packages run data bench test test-exhaustive test-all lint types docs board board-pages dist clean clean-data

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 18

install: $(VENV)/installed ## make .venv with what running needs

$(VENV)/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install $(PIP_ARGS) -e .
	touch $@

tools: $(VENV)/tools ## add what testing and the documentation need

# After the runtime: some of the tools ask for packages without bounds, and must find torch in place.
$(VENV)/tools: $(VENV)/installed
	$(BIN)/python -m pip install $(PIP_ARGS) -e '.[dev]'
	touch $@

hooks: tools ## check every commit: style, types, import rules, no large files
	$(BIN)/pre-commit install

# Without them the tests of tests/cluster that need a Slurm are skipped; all others run.
cluster-packages: ## Debian's packages for the tests on a Slurm of their own, if this is Debian and one may install here
	tests/install.sh "The tests on a Slurm of their own" "slurmctld slurmd sbatch munged" "slurmctld slurmd slurm-client munge"

# Without it the tests of the board's page are skipped.
browser-packages: ## Debian's Chromium for the tests of the board's page, if this is Debian and one may install here
	tests/install.sh "The tests in a browser" "chromium" "chromium fonts-dejavu-core"

run: install ## the main job: data, training, evaluation, leaderboard (about 7 minutes on 2 cores)
	$(BIN)/python run.py model=fno dataset=ns2d

data: install ## every split of ns2d, darcy2d and burgers1d on the lite track (about 8 minutes on 2 cores; what is there is kept)
	$(BIN)/python scripts/generate_data.py -m dataset=ns2d,darcy2d,burgers1d track=lite 'generation.splits=[all]' paths.data=$(DATA)

bench: tools ## time and weigh steps, data, reading, loading, metrics and growth; rewrite docs/performance.md and the tables of findings.md (about 35 minutes; let nothing else run)
	$(BIN)/python -m pip install $(PIP_ARGS) -e '.[bench]'
	$(BIN)/python -m benchmarks.steps kept
	$(BIN)/python -m benchmarks.steps default
	$(BIN)/python -m benchmarks.steps memory
	$(BIN)/python -m benchmarks.transforms
	$(BIN)/python -m benchmarks.around
	$(BIN)/python -m benchmarks.loading
	$(BIN)/python -m benchmarks.sweeps
	$(BIN)/python -m benchmarks.board
	$(BIN)/python -m benchmarks.growth
	$(BIN)/python -m benchmarks.datagen
	$(BIN)/python -m benchmarks.report

# A process that has nothing left takes over half of what another still has to do.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -rs -n auto --dist worksteal

test: tools ## every promise once, one process per core (about 8 minutes on 2 cores)
	$(PYTEST) -m 'not exhaustive'

# PARTS=3 PART=2 tries every third of these tests, beginning with the second.
PARTS ?= 1
PART ?= 1
test-exhaustive: tools ## what `test` leaves out: one mechanism at every other place, and the pages of the documentation (about an hour on 2 cores)
	$(PYTEST) -m exhaustive --splits $(PARTS) --group $(PART) --splitting-algorithm least_duration

test-all: test test-exhaustive ## both

lint: tools ## style and import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: tools ## static types
	$(BIN)/pyright

docs: tools ## rewrite docs/metrics.md and docs/models.md from the docstrings, and build the documentation into site/
	$(BIN)/python scripts/write_reference_pages.py
	$(BIN)/mkdocs build --strict

board: install ## run what leaderboard/ lacks, file it there, rewrite its pages (about 6 hours on 2 cores if nothing is committed, minutes if all is; the same command goes on)
	$(BIN)/python run.py experiment=leaderboard $(BOARD_ARGS)
	$(MAKE) board-pages

board-pages: install ## rewrite the committed leaderboard and the README's table from leaderboard/records alone
	$(BIN)/python -m neuralop_bench.leaderboard leaderboard -o leaderboard
	$(BIN)/python scripts/write_readme_table.py

dist: tools ## build the sdist, and from it the wheel, into dist/
	$(BIN)/python -m build --no-isolation

clean: ## remove the environment and caches; data and outputs stay
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Only folders named as the cache names them, <dataset>-<8 hex digits>: whatever else lies there was not generated.
clean-data: ## remove the generated datasets, data/<dataset>-<hash>; a run makes them again; outputs stay
	test ! -d $(DATA) || find $(DATA)/ -mindepth 1 -maxdepth 1 -type d -name '*-$(HEX8)' -print -exec rm -rf {} +
