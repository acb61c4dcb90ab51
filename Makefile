# The commands of the project; `make help` lists them. All work in .venv, made once and reused.

# The first interpreter that the training side supports; `make PYTHON=/path/to/python` overrides.
SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))
PYTHON ?= $(shell for python in python3 python3.12 python3.11; do \
    $$python -c '$(SUPPORTED)' 2>/dev/null && echo $$python && break; done)

BIN := .venv/bin
DEVICE := build/device
# A file of tests is one process's, which makes its models once.
IN_PARALLEL := --numprocesses 2 --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help install quickstart check docs test test-all test-browser test-device notebook format clean

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*##  *\(.*\)/\1|\2/p' $(MAKEFILE_LIST) \
	    | awk -F'|' '{printf "  make %-13s %s\n", $$1, $$2}'

install: .venv/.installed  ## .venv with everything but the microphone

quickstart: .venv/.installed  ## train, score, export and try a recogniser of spoken commands
	$(BIN)/python pipelines/quickstart.py

test: check docs test-device  ## every check but the long ones
	$(BIN)/python -m pytest -m "not long and not browser" $(IN_PARALLEL)

test-all: check docs test-device  ## every check
	$(BIN)/python -m pytest -m "not browser" $(IN_PARALLEL)

check: .venv/.installed  ## lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: .venv/.installed  ## the documentation, into build/docs; a warning is an error
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet docs build/docs

test-browser: .venv/.installed  ## tests that drive a browser
	@if grep -qs "mark.browser" tests/test_*.py; \
	    then $(BIN)/python -m pytest -m browser; \
	    else echo "test-browser: no page to test yet, nothing was run"; fi

# A wheel, and from outside the checkout's package: what is tested is what a user gets.
test-device: $(DEVICE)/.installed  ## the wheel, installed without TensorFlow
	rm -rf build/lib build/dist
	$(DEVICE)/bin/python -m pip wheel --quiet --no-deps --wheel-dir build/dist .
	$(DEVICE)/bin/python -m pip install --quiet --no-deps --force-reinstall build/dist/*.whl
	@! $(DEVICE)/bin/python -c "import tensorflow" 2>/dev/null \
	    || { echo "the base install brought TensorFlow: see DEVICE in setup.py" >&2; exit 1; }
	$(DEVICE)/bin/pytest --noconftest -rsP tests/test_device_install.py

notebook: .venv/.installed  ## execute every notebook anew and keep what it shows
	$(BIN)/python pipelines/run_notebooks.py

format: .venv/.installed  ## apply the formatter and the safe fixes
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove what was built; keeps .venv and runs
	rm -rf build dist *.egg-info .pytest_cache .hypothesis .ruff_cache .mypy_cache
	find speechrnn pipelines tests -name __pycache__ -type d -prune -exec rm -rf {} +

# make_venv FOLDER
define make_venv
	@test -n "$(PYTHON)" && $(PYTHON) -c '$(SUPPORTED)' \
	    || { echo "speechrnn needs Python 3.11 or 3.12 and found neither (PYTHON=$(PYTHON));" \
	         "name one: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	test -x $(1)/bin/python || $(PYTHON) -m venv $(1)
endef

.venv/.installed: setup.py
	@echo "Installing into .venv, once: TensorFlow and the tools, 1 to 5 minutes by the network."
	$(call make_venv,.venv)
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	@touch $@

$(DEVICE)/.installed: setup.py
	rm -rf $(DEVICE)
	$(call make_venv,$(DEVICE))
	$(DEVICE)/bin/python -m pip install --quiet . pytest pytest-timeout
	@touch $@
