# Each target installs what it needs into .venv first; an environment that is there and up to date is kept.

PYTHON ?= python3
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# DeepSpeed compiles with ninja, which pip puts into .venv/bin.
export PATH := $(CURDIR)/.venv/bin:$(PATH)

INSTALLED := .venv/installed
RUNNABLE := .venv/runnable

.PHONY: help demo test browser gpu torture lint check format bench clean

help: ## this list
	@sed -nE 's/^([a-z]+):.*## (.*)/make \1	\2/p' $(MAKEFILE_LIST) | expand -t 14

demo: $(RUNNABLE) ## the whole chain on a laptop's CPU, in 15 minutes: world, tokenizers, samples -> runs/demo/index.html
	@train/demo.sh

test: $(INSTALLED) ## every test that runs without a GPU, in two processes
	@pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not gpu and not browser"

browser: $(INSTALLED) ## the pages in Chromium (apt install chromium): clips are made, keys change frames
	@pytest -q -rs -m browser tests/serve

gpu: $(INSTALLED) ## on a machine with a card: what only that can prove, in under ten minutes, and one table -> runs/gpu/table.json
	@python tests/gpu

torture: $(INSTALLED) ## 50 kills of a run of two processes, each resumed with no bit changed; every bad input to every command
	@VPOET_KILLS=50 pytest -q -k torture tests/programs/test_pretrain.py
	@VPOET_EVERY=1 pytest -q --no-showlocals tests/programs/test_bad_inputs.py

lint: $(INSTALLED) ## ruff, mypy, the floors of the house, and that no modules import each other
	@ruff format --check .
	@ruff check .
	@mypy
	@lint-imports
	@pytest -q --noconftest tests/test_imports.py

check: lint test ## lint and test: what CI runs

format: $(INSTALLED) ## let ruff format and mend what it can
	@ruff format .
	@ruff check --fix .

bench: $(INSTALLED) ## speed of the parts, one JSON line each
	@python tests/bench

clean: ## the environment and caches; runs/ stays
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis dist

# What runs the chain, and what also tests it.
$(RUNNABLE): WITH := worlds
$(INSTALLED): WITH := worlds,dev
$(RUNNABLE) $(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "vpoet needs Python 3.11 or newer: make PYTHON=python3.12")'
	@test -x .venv/bin/python || $(PYTHON) -m venv .venv
	@echo "installing vpoet and its dependencies into .venv"
	@.venv/bin/python -m pip install --quiet --editable ".[$(WITH)]" --constraint constraints.txt
	@touch $@ $(RUNNABLE)
