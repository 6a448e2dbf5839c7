# `make demo` clones a voice, `make test` checks everything; both start from an empty clone and install into .venv.

PYTHON ?= python3
TEXT   ?= The quick brown fox jumps over the lazy dog, and then it sleeps until the morning.
PROMPT ?= valle/assets/eval/1998-15444-0002.opus

VENV    := .venv
BIN     := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
RECIPE  := setup.cfg pyproject.toml constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test lint audit format clean

help:  ## this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

demo: $(VENV)/base.stamp  ## clone the voice of a shipped recording: out/demo.wav and a picture of it
	$(BIN)/valle clone --prompt $(PROMPT) --text "$(TEXT)" --out out/demo.wav --plot out/demo.png

test: lint  ## lint, then all tests
	$(BIN)/pytest

lint: $(VENV)/dev.stamp  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

audit: $(VENV)/dev.stamp  ## known vulnerabilities of the pinned versions; asks pypi.org
	$(BIN)/python -m pip install --quiet --disable-pip-version-check pip-audit
	$(BIN)/pip-audit --requirement constraints.txt --no-deps --disable-pip

format: $(VENV)/dev.stamp  ## let ruff repair style and imports
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove .venv and everything that was built
	rm -rf $(VENV) out build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis

# A stamp says that an installation is complete and newer than what describes it.
$(VENV)/base.stamp: $(RECIPE) | $(BIN)/python
	@echo "installing what cloning needs into $(VENV) (a few minutes at the first time)"
	$(INSTALL) -e .
	@touch $@

# encodec goes in without its dependencies: it asks for torchaudio, which beside a torch of another build (CPU-only, say)
# cannot be loaded and takes other packages down with it.
$(VENV)/dev.stamp: $(RECIPE) | $(BIN)/python
	@echo "installing what training, evaluation and tests need into $(VENV) (a few minutes at the first time)"
	$(INSTALL) -e '.[train,eval,serve,hub,dev]'
	$(INSTALL) --no-deps encodec einops
	@touch $@ $(VENV)/base.stamp

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "valle needs Python 3.11 or newer, but '$(PYTHON)' is not: $$($(PYTHON) --version 2>&1)." >&2; \
	    echo "Name another one: make PYTHON=python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }
