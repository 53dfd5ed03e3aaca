# The two commands of the README are `make run` and `make test`; the rest is what they are made of.

PYTHON ?= python3
VENV   ?= .venv
ENGINE ?= llama_cpp
# Other people's code warns, and brings a plugin for pytest that it does not need.
THEIRS  = -p no:asyncio -W ignore
BIN     = $(VENV)/bin
PYTEST  = $(BIN)/python -m pytest
# Most tests wait for a process of theirs, so there is room for one file more than there are cores.
SPREAD  = -n $(shell expr $$(nproc) + 1) --dist loadfile
NO_ENGINE = -m "not real and not gpu"

.PHONY: run test test-long fuzz test-fast test-oldest test-system test-system-engines container clients webui rpm check fmt lint types layers docs engines zoo bench lock clean

## Talk to a model: installs what is missing, then serves the demo model.  ENGINE=llama_cpp|vllm|max
run: $(VENV)/.installed
	$(BIN)/hyperllamad --demo $(ENGINE)

## The tests, the real engines included (installed once, into the user's own state directory).
test: $(VENV)/.installed-dev engines
	$(PYTEST) $(SPREAD) $(NO_ENGINE)
	$(PYTEST) -m "(real or gpu) and not long"

## What else is shown with the real engines, and takes minutes more: vectors, tools, ranks, spoilt bodies, restarts, kills.
test-long: $(VENV)/.installed-dev engines
	$(PYTEST) -m long

## Ask every route for nonsense: 20,000 spoilt bodies, and what schemathesis makes of the OpenAPI document.
fuzz: $(VENV)/.installed-dev
	FUZZ=$${FUZZ:-20000} $(PYTEST) -s tests/front/test_mutations.py tests/front/test_openapi_fuzz.py

## The tests that need no engine.
test-fast: $(VENV)/.installed-dev
	$(PYTEST) $(SPREAD) $(NO_ENGINE)

## The same with the oldest dependencies that are promised to work, in an environment of its own.
test-oldest: $(VENV)-oldest/.installed
	$(VENV)-oldest/bin/python -m pytest $(SPREAD) $(NO_ENGINE)

## The package on a whole machine: built, installed, used, broken, upgraded, removed.  Needs root, on Debian or Ubuntu.
test-system: $(VENV)/.installed-dev
	$(BIN)/python -m tests.system.box test

## vLLM, MAX and llama.cpp, as `make engines` has installed them, under the sandbox of the service: minutes of two cores.
test-system-engines: $(VENV)/.installed-dev engines
	$(BIN)/python -m tests.system.box engines

## The container's image, built by podman on the box's tree in place of Fedora's image, its container run and used.
container: $(VENV)/.installed-dev
	$(BIN)/python -m tests.system.box container

## The package, built where Fedora's rpm and Python are: dist/rpm/.
rpm: $(VENV)/.installed-dev
	$(BIN)/python -m tests.system.box rpm

## Other people's clients as they are published, against a real engine, in an environment of their own (needs npm).
clients: $(VENV)-clients/.installed tests/clients/js/node_modules engines
	CLIENTS=all $(VENV)-clients/bin/python -m pytest $(THEIRS) tests/clients

## Open WebUI in a headless browser against a real engine (Python 3.11 or 3.12; Debian's chromium and chromium-driver).
webui: $(VENV)-webui/.installed engines
	WEBUI=all $(VENV)-webui/bin/python -m pytest $(THEIRS) tests/webui

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

## A thousand random operations over ten models in memory for four, on real engines (ten minutes).
zoo: $(VENV)/.installed-dev engines
	$(BIN)/python -m tests.zoo 1000

## Measure what docs/performance.md reports.
bench: $(VENV)/.installed-dev
	$(BIN)/python -m tests.bench.relay

## Faults in numbers: kill, stop, hang up, leak; some four hours.  Writes the table in docs/reliability.md.
## PARTS="soak idle" for some of it, PARTS="--minutes 100 --at-once 4 kill-main-max" for a series on vLLM or MAX,
## SHORT=1 for a few times each, a quarter of an hour, and nothing written.
.PHONY: faults
faults: $(VENV)/.installed-dev engines
	$(BIN)/python -m tests.faults $(if $(SHORT),--short) $(PARTS)

## Pin the dependencies anew (needs uv).
lock:
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-annotate -q \
	  --extra convert --extra sleep pyproject.toml requirements-dev.in -o requirements-dev.lock
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-annotate -q \
	  --no-deps requirements-oldest.in -o requirements-oldest.lock
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-annotate -q \
	  --extra convert --extra sleep pyproject.toml requirements.in -c requirements-dev.lock -o requirements.lock
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-annotate -q \
	  --extra convert pyproject.toml tests/clients/requirements.in -o tests/clients/requirements.lock
	uv pip compile --python-version 3.11 --python-platform x86_64-manylinux_2_28 --generate-hashes --no-header \
	  --no-annotate -q --extra convert $$(sed 's/^/--no-emit-package /' tests/webui/left-out.txt) pyproject.toml \
	  tests/webui/requirements.in -o tests/webui/requirements.lock
	cd tests/clients/js && npm install --package-lock-only --silent && node unresolve.js

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

$(VENV)-clients/.installed: tests/clients/requirements.lock
	$(PYTHON) -m venv $(VENV)-clients
	$(VENV)-clients/bin/python -m pip install --quiet --require-hashes -r tests/clients/requirements.lock
	$(VENV)-clients/bin/python -m pip install --quiet --no-deps --no-build-isolation -e .
	touch $@

tests/clients/js/node_modules: tests/clients/js/package-lock.json
	cd tests/clients/js && npm ci --silent --no-audit --no-fund
	touch $@

# Without its dependencies' dependencies: the lock leaves out what Open WebUI loads only to compute embeddings or to
# hear speech by itself (torch, three gigabytes of CUDA, ...).
$(VENV)-webui/.installed: tests/webui/requirements.lock
	$(PYTHON) -m venv $(VENV)-webui
	$(VENV)-webui/bin/python -m pip install --quiet --require-hashes --no-deps -r tests/webui/requirements.lock
	$(VENV)-webui/bin/python -m pip install --quiet --no-deps --no-build-isolation -e .
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
