# Every target sets itself up on a machine with only Python 3.11 or newer; uv is used when it is there.
.DEFAULT_GOAL := help
VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= python3
UV := $(shell command -v uv 2>/dev/null)

.PHONY: help demo test lint bench clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

demo: $(VENV)/.ready ## run the flow on real taxi trips and show what it did
	@$(BIN)/penstock demo

test: $(VENV)/.ready-test ## run the tests
	@$(BIN)/python -m pytest -q

lint: $(VENV)/.ready-lint ## check style, types and floors
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check -q .
	@$(BIN)/mypy
	@PYTHONPATH=. $(BIN)/lint-imports

bench: $(VENV)/.ready ## run the benchmarks, each against its floor
	@$(BIN)/python -m benchmarks

clean: ## delete the virtual environment and caches
	@rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis

# One stamp per set of extras, made anew when pyproject.toml changes.
ifdef UV
MAKE_VENV = $(UV) venv -q --clear --python $(PYTHON) $(VENV)
INSTALL = $(UV) pip install -q --python $(BIN)/python
else
MAKE_VENV = $(PYTHON) -m venv --clear $(VENV)
INSTALL = $(BIN)/python -m pip install -q --disable-pip-version-check
endif

$(BIN)/python:
	@echo "setting up $(VENV) …"
	@$(MAKE_VENV)

$(VENV)/.ready: pyproject.toml | $(BIN)/python
	@$(INSTALL) -e .
	@touch $@

$(VENV)/.ready-test: pyproject.toml | $(BIN)/python
	@$(INSTALL) -e '.[test]'
	@touch $@ $(VENV)/.ready

$(VENV)/.ready-lint: pyproject.toml | $(BIN)/python
	@$(INSTALL) -e '.[test,lint]'
	@touch $@ $(VENV)/.ready $(VENV)/.ready-test
