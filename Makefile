# The two commands of the README are `make run` and `make test`; the rest is what they are made of.

PYTHON ?= python3
VENV   ?= .venv
ENGINE ?= llama_cpp
BIN     = $(VENV)/bin
PYTEST  = $(BIN)/python -m pytest

.PHONY: run test fuzz test-fast test-oldest test-system rpm check fmt lint types layers docs engines bench lock clean

## Talk to a model: installs what is missing, then serves the demo model.  ENGINE=llama_cpp|vllm|max
run: $(VENV)/.installed
	$(BIN)/hyperllamad --demo $(ENGINE)

## Every test, the real engines included (installed once, into the user's own state directory).
test: $(VENV)/.installed-dev engines
	$(PYTEST)

## Ask every route for nonsense: 20,000 spoilt bodies, and what schemathesis makes of the OpenAPI document.
fuzz: $(VENV)/.installed-dev
	FUZZ=$${FUZZ:-20000} $(PYTEST) -s tests/front/test_mutations.py tests/front/test_openapi_fuzz.py

## The tests that need no engine.
test-fast: $(VENV)/.installed-dev
	$(PYTEST) -m "not real and not gpu"

## The same with the oldest dependencies that are promised to work, in an environment of its own.
test-oldest: $(VENV)-oldest/.installed
	$(VENV)-oldest/bin/python -m pytest -m "not real and not gpu"

## The package on a whole machine: built, installed, used, broken, upgraded, removed.  Needs root, on Debian or Ubuntu.
test-system: $(VENV)/.installed-dev
	$(BIN)/python -m tests.system.box test

## The package, built where Fedora's rpm and Python are: dist/rpm/.
rpm: $(VENV)/.installed-dev
	$(BIN)/python -m tests.system.box rpm

## What must hold before a commit: style, types, architecture, documents, and the tests that need no engine.
check: lint types layers test-fast

fmt: $(VENV)/.installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lint: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/.installed-dev
	$(BIN)/mypy

layers: $(VENV)/.installed-dev
	$(BIN)/lint-imports

## Write the documents that are made from code.
docs: $(VENV)/.installed-dev
	$(BIN)/python -m hyperllamactl.document > docs/control.md
	$(BIN)/python -m tools

## Install the three engines and the demo model, as the tests use them.
engines: $(VENV)/.installed
	for engine in llama_cpp vllm max; do $(BIN)/hyperllamad --demo $$engine --prepare || exit 1; done

## Measure what docs/performance.md reports.
bench: $(VENV)/.installed-dev
	$(BIN)/python -m tests.bench.relay

## Pin the dependencies anew (needs uv).
lock:
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-annotate -q \
	  --extra convert pyproject.toml requirements-dev.in -o requirements-dev.lock
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-annotate -q \
	  --no-deps requirements-oldest.in -o requirements-oldest.lock
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-annotate -q \
	  --extra convert pyproject.toml requirements.in -c requirements-dev.lock -o requirements.lock

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or later is needed: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: requirements.lock pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	touch $@

$(VENV)-oldest/.installed: requirements-oldest.lock requirements-dev.lock
	$(PYTHON) -m venv $(VENV)-oldest
	$(VENV)-oldest/bin/python -m pip install --quiet --require-hashes -r requirements-dev.lock
	$(VENV)-oldest/bin/python -m pip install --quiet --require-hashes --no-deps -r requirements-oldest.lock
	$(VENV)-oldest/bin/python -m pip install --quiet --no-deps --no-build-isolation -e .
	touch $@

$(VENV)/.installed-dev: requirements-dev.lock $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements-dev.lock
	touch $@
