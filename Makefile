# Two commands on a fresh machine: `make demo` and `make test`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# Passed on to pytest: make test ARGS="tests/cli -k config"
ARGS ?=
# How much `make soak` does: damaged files of each format, searches that are killed, sequences of random operations
# on each database, and of what seed.
DAMAGED ?= 2000
SEARCHES ?= 100
CHAOS ?= 100
SEED ?= 0
# What is taken out of the fences, one at a time, to see that the random operations find it.
FAULTS ?= fences token epoch settings hashes

.DEFAULT_GOAL := help
.PHONY: help install demo test soak lint format reference docs

help:
	@echo "make install   .venv with the tuner command in .venv/bin"
	@echo "make demo      install, then the whole job on embedded data, into demo/"
	@echo "make test      install with the development extras, then all tests"
	@echo "make soak      damaged recordings and killed searches by the thousand, an hour or two"
	@echo "make lint      style, types, direction of imports"
	@echo "make format    put the code in its style"
	@echo "make reference the parts of the documentation that are made from the code"
	@echo "make docs      the documentation, into site/"

# The stamps are written last: an installation that was interrupted is taken up again.
$(VENV)/python.stamp:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "error: Python 3.11 or newer is needed; name one with PYTHON=..." >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/install.stamp: $(VENV)/python.stamp pyproject.toml
	$(PIP) install --quiet --editable .
	@touch $@

$(VENV)/dev.stamp: $(VENV)/install.stamp
	$(PIP) install --quiet --editable ".[dev]"
	@touch $@

install: $(VENV)/install.stamp

demo: install
	$(BIN)/tuner demo demo

test: $(VENV)/dev.stamp
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile $(ARGS)

# Each runs also where one before it found something. The last is the newest optuna, released or not: whether its tables are
# still those that are written here.
soak: $(VENV)/dev.stamp
	@status=0; \
	$(BIN)/python -m tests.recordings.soak_mutations --count $(DAMAGED) --seed $(SEED) || status=1; \
	$(BIN)/python -m tests.soak.kill --runs $(SEARCHES) --seed $(SEED) || status=1; \
	$(BIN)/python -m tests.soak.chaos --sequences $(CHAOS) --seed $(SEED) || status=1; \
	$(BIN)/python -m tests.soak.chaos --sequences $(CHAOS) --seed $(SEED) --database postgresql || status=1; \
	for fault in $(FAULTS); do \
		echo "planted: $$fault, which must be found"; \
		! $(BIN)/python -m tests.soak.chaos --sequences 50 --seed $(SEED) --planted $$fault >/dev/null 2>&1 || status=1; \
	done; \
	TUNER_TEST_WORKERS=8 $(BIN)/python -m pytest -q tests/studies/test_postgres.py -k killed || status=1; \
	$(PIP) install --quiet --pre --upgrade --no-deps --target build/newest optuna \
		&& PYTHONPATH=build/newest $(BIN)/python -m pytest -q tests/studies/test_trials.py || status=1; \
	exit $$status

lint: $(VENV)/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/dev.stamp
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Run it after a change of an option, a key of tuner.toml or a network: a test compares.
reference: $(VENV)/dev.stamp
	$(BIN)/python docs/generate.py

# Warnings are errors: a link that leads nowhere, a docstring that is not well formed.
docs: $(VENV)/docs.stamp
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs site
	@echo "open site/index.html"

$(VENV)/docs.stamp: $(VENV)/install.stamp
	$(PIP) install --quiet --editable ".[docs]"
	@touch $@
