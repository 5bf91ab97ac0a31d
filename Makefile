# Two commands do all: `make demo` and `make test`. Both make their own virtual environment.
SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed-$(shell sha256sum pyproject.toml | cut -c1-12)

.PHONY: demo test test-slow check lint types imports agent format clean help

help:
	@echo "make demo       a real study on generated phantoms, compared with random search (under 5 minutes)"
	@echo "make test       every check and test"
	@echo "make test-slow  what is slow and rare"
	@echo "make check      lint, types, import direction, agent's Python version"

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[workloads-cpu,report,skopt,cmaes,postgres,mysql,dev]'
	@rm -f $(VENV)/.installed-*
	@touch $@

demo: $(STAMP)
	@PATH="$(abspath $(BIN)):$$PATH" bash examples/demo.sh

check: lint types imports agent

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# Folder by folder: two folders of tests may have files of one name.
TYPED := $(shell find tests benchmarks -name '*.py' -printf '%h\n' | sort -u)

types: $(STAMP)
	$(BIN)/mypy
	@for folder in $(TYPED); do \
	  MYPYPATH=$$(echo $(TYPED) | tr ' ' ':') $(BIN)/mypy $$folder/*.py | grep -v '^Success' || [ $${PIPESTATUS[0]} -eq 0 ] || exit 1; \
	done

imports: $(STAMP)
	$(BIN)/lint-imports

agent: $(STAMP)
	$(BIN)/vermin --no-tips --violations -t=3.6- orchestrator/agent.py orchestrator/trial.py orchestrator/localq.py orchestrator/transports/far_end.py \
	  orchestrator/doctor/far_side.py

# More workers than this only take time from each other: many tests run real jobs.
PYTEST := $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadgroup

test: check
	$(PYTEST)

test-slow: $(STAMP)
	$(PYTEST) --run-slow

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) demo runs build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
