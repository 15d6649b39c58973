# Two commands do all the set-up on a fresh machine:
#   make run    makes .venv, installs livemail, runs the local profile (data in ./var)
#   make test   makes .venv with the tools, checks the code and runs every test
# Both say what they do and are safe to repeat.  Debian packages the tests use: tests/debian-packages.txt.

# The system's Python before another on PATH: its security updates come with the system's, and a distribution's build is a
# sixth faster than one made on the spot.  PYTHON=… says otherwise.
SYSTEM_PYTHON := /usr/bin/python3
PYTHON ?= $(shell $(SYSTEM_PYTHON) -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && \
  echo $(SYSTEM_PYTHON) || echo python3)
VENV := .venv
BIN := $(VENV)/bin
export LIVEMAIL_DATA ?= $(CURDIR)/var

.PHONY: run test check unit system format clean debian help

help:
	@sed -n '2,4s/^# *//p' Makefile
	@echo "  make check   formatting, lint, types, layers, module sizes"
	@echo "  make unit    the tests that start no server"
	@echo "  make system  the tests that start the real server and real clients"
	@echo "  make format  formats the code and mends what the linter can"
	@echo "  make clean   removes .venv and caches, never data"

$(BIN)/python:
	@echo "livemail: making a virtual environment in $(VENV) with $(PYTHON)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "livemail needs Python 3.11 or newer; this is $$($(PYTHON) --version). Set PYTHON=/path/to/python3.11."; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
	  { echo "python3 -m venv failed. On Debian: apt-get install python3-venv, then make again."; rm -rf $(VENV); exit 1; }

$(VENV)/installed: $(BIN)/python setup.cfg pyproject.toml
	@echo "livemail: installing livemail and what it needs into $(VENV)"
	@$(BIN)/pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(VENV)/installed-test: $(VENV)/installed
	@echo "livemail: installing the test tools into $(VENV)"
	@$(BIN)/pip install --quiet --disable-pip-version-check -e '.[test,dev]'
	@touch $@

run: $(VENV)/installed
	@exec $(BIN)/twistd --nodaemon --pidfile= livemail run

debian:
	@sh tests/install-debian-packages

check: $(VENV)/installed-test
	@echo "livemail: format, lint, types, layers, module sizes"
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/python tests/module_sizes.py

unit: $(VENV)/installed-test
	@$(BIN)/python -m pytest -q -m 'not system' tests

system: $(VENV)/installed-test debian
	@$(BIN)/python -m pytest -q -m system tests

test: $(VENV)/installed-test debian check
	@echo "livemail: every test"
	@$(BIN)/python -m pytest -q tests

format: $(VENV)/installed-test
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix-only --quiet .

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build *.egg-info
