# Needs Python >= 3.11 and make; everything else is installed into .venv. A C++ compiler, if there is one,
# builds the fast kernels.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# The extras that a virtual environment has been given are remembered as $(VENV)/.extra-NAME.
$(VENV)/.extra-%: pyproject.toml setup.py constraints.txt $(wildcard src/reformer/ops/csrc/*)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[$*]'
	touch $@

.PHONY: quickstart test test-slow check format bench clean

quickstart: $(VENV)/.extra-quickstart
	$(BIN)/reformer quickstart

test: $(VENV)/.extra-test
	$(BIN)/python -m pytest

test-slow: $(VENV)/.extra-test
	$(BIN)/python -m pytest -m slow

check: $(VENV)/.extra-dev
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/mypy

format: $(VENV)/.extra-dev
	$(BIN)/ruff format src tests benchmarks
	$(BIN)/ruff check --fix src tests benchmarks

bench: $(VENV)/.extra-bench
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) build dist src/*.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
