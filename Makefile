# Everything a newcomer types. `make demo` and `make test` need nothing but Python 3.11 and this checkout.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO_STAMP := $(VENV)/.installed_for_demo

.PHONY: install demo test test-failed test-full check format bench chaos clean

install: $(STAMP)

# The demo needs a small part of what the tests need: nobody who only looks waits for the rest.
$(DEMO_STAMP): GROUPS := demo
$(STAMP): GROUPS := demo test check
$(DEMO_STAMP) $(STAMP): pyproject.toml constraints.txt
	@echo "Installing infertap and its groups $(GROUPS) into $(VENV); this takes one to three minutes."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable . $(GROUPS:%=--group %)
	touch $@

demo: $(if $(wildcard $(STAMP)),$(STAMP),$(DEMO_STAMP))
	$(BIN)/infertap demo

test: install
	$(BIN)/pytest -n 2 --dist worksteal -m "not heavy"

# What failed in the last run, one after the other.
test-failed: install
	$(BIN)/pytest -m "not heavy" --last-failed --last-failed-no-failures none

test-full: install
	$(BIN)/pytest

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: install
	$(BIN)/python benchmarks/run.py

chaos: install
	$(BIN)/pytest -m slow

clean:
	rm -rf $(VENV) dist build .pytest_cache .mypy_cache .ruff_cache
