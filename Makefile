# citygate: `make demo` runs a simulated town, `make test` tests everything. Both set themselves up in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
WEB := gateway/city/web
NPM := PATH="$(CURDIR)/$(BIN):$$PATH" npm --prefix $(WEB)
PAGE := $(shell find $(WEB) -name node_modules -prune -o -path $(WEB)/dist -prune -o -name __pycache__ -prune -o -type f -print)
LOCKS := requirements/dev.txt requirements/demo.txt requirements/city.txt requirements/gateway.txt
ARGS ?=

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo test check bench chaos fuzz format lock clean setup-demo setup-dev

help: ## what there is
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "make %-8s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

demo: setup-demo ## run a simulated town: make demo ARGS="--port 18080 --duration 120"
	$(BIN)/citygate demo $(ARGS)

test: setup-dev ## run all tests: make test ARGS="-k spool"
	$(BIN)/python -m pytest $(ARGS)

check: setup-dev ## style, types, the page's types and tests, and the locks
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(NPM) run --silent check
	$(NPM) run --silent test
	$(PIP) check
	$(BIN)/python -m pytest --quiet tests/house/test_locks.py

bench: setup-dev ## measure how fast the edge is
	$(BIN)/python -m pytest tests/bench --override-ini=python_files='bench_*.py' --capture=no $(ARGS)

fuzz: setup-dev ## ten minutes of mutated input for every reader: make fuzz ARGS="payload --minutes 1"
	$(BIN)/python -m tests.fuzz $(ARGS)

chaos: setup-dev ## kill everything at random, and look for what is lost: make chaos ARGS="--seed 7"
	$(BIN)/python -m tests.chaos $(ARGS)

format: setup-dev ## let ruff write the code as `make check` wants it
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# Existing pins are kept; `make lock ARGS=--upgrade` takes the newest versions. dev.txt has everything, so the others
# are cut to its versions.
COMPILE := $(BIN)/uv pip compile --quiet pyproject.toml --universal --python-version 3.11 --generate-hashes \
	--no-header --no-annotate --no-emit-index-url --no-emit-find-links
lock: setup-dev ## pin the requirements anew
	$(COMPILE) --all-extras --group dev --output-file requirements/dev.txt $(ARGS)
	$(COMPILE) --extra demo --group build --constraints requirements/dev.txt --output-file requirements/demo.txt
	$(COMPILE) --extra city --constraints requirements/dev.txt --output-file requirements/city.txt
	$(COMPILE) --constraints requirements/dev.txt --output-file requirements/gateway.txt

clean: ## remove everything that was made, .venv too
	rm -rf $(VENV) $(WEB)/dist $(WEB)/node_modules dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find gateway sensors tests -name __pycache__ -type d -exec rm -rf {} +

setup-demo: $(VENV)/.demo $(VENV)/.citygate
setup-dev: $(VENV)/.dev $(VENV)/.citygate

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo 'citygate needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)'; exit 1; }
	@$(PYTHON) -m venv $(VENV) \
		|| { rm -rf $(VENV); echo 'cannot make .venv: install python3-venv (apt-get install python3-venv)'; exit 1; }

$(VENV)/.demo: requirements/demo.txt | $(BIN)/python
	@echo 'installing what the demo needs into $(VENV) …'
	@$(PIP) install --require-hashes --requirement requirements/demo.txt
	@touch $@

# dev.txt holds all of demo.txt.
$(VENV)/.dev: requirements/dev.txt | $(BIN)/python
	@echo 'installing what the tests need into $(VENV) …'
	@$(PIP) install --require-hashes --requirement requirements/dev.txt
	@touch $(VENV)/.demo $@

# Installing builds the page, so a change of the page's source installs again.
$(VENV)/.citygate: pyproject.toml hatch_build.py $(PAGE) | $(BIN)/python
	@echo 'building the page …'
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@
