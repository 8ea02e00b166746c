# Everything a newcomer needs; `make help` lists it. Needs Linux x86-64, Python >= 3.11 and make, nothing else:
# the first target that is asked for sets up .venv from the locked requirements.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
NODE   := tests/npm/node_modules/.package-lock.json
GOOSE  := build/goosebit/installed

HOST_CODE   := tools host_sim tests scripts
DEVICE_CODE := boot lib firmware

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-hawkbit test-goosebit test-chip lint format typecheck bench bench-check bench-heap bench-server powercut powercut-full seeded-bugs mutation drills fuzz requirements audit docs lock clean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# ---- setting up ---------------------------------------------------------------------------------

setup: $(READY) $(NODE) ## install what the other targets need (they do it themselves)

$(READY): requirements/dev.txt requirements/firmware.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "error[PYTHON]: Sekisho needs Python 3.11 or newer; name one with make PYTHON=python3.x." >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) \
	  || { echo "error[VENV]: $(PYTHON) cannot make a virtual environment; on Debian install python3-venv." >&2; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements/firmware.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e .
	@touch $@

# A second, 32-bit MicroPython for the pure modules' tests. Optional on a desk, required in CI.
$(NODE): $(wildcard tests/npm/package-lock.json)
	@if test ! -e tests/npm/package-lock.json; then :; \
	elif command -v node >/dev/null && command -v npm >/dev/null; then npm ci --silent --no-audit --no-fund --prefix tests/npm; \
	elif test -n "$$CI"; then echo "error[NODE]: CI needs node and npm for the tests on 32-bit MicroPython." >&2; exit 1; \
	else echo "notice: no node here, so the tests on 32-bit MicroPython will be skipped."; fi

# gooseBit, an update server that is none of ours, in an environment of its own. Optional on a desk, required in CI.
$(GOOSE): requirements/goosebit.txt | $(READY)
	@$(BIN)/python scripts/goosebit.py --install

# ---- what a newcomer runs -----------------------------------------------------------------------

demo: $(READY) ## the main job on a simulated ESP32, and what it refuses
	@$(BIN)/python -m sekisho_tools.demo

test: $(READY) $(NODE) $(GOOSE) ## all tests, on CPython and on MicroPython
	$(BIN)/python -m pytest -q -n 2 --dist worksteal

lint: $(READY) ## style and type checks; changes nothing
	$(BIN)/ruff format --check --quiet
	$(BIN)/ruff check --quiet
	@$(MAKE) --no-print-directory typecheck

format: $(READY) ## put the sources into shape
	$(BIN)/ruff check --fix --quiet
	$(BIN)/ruff format --quiet

typecheck: $(READY) ## mypy: strict on host code, with MicroPython's stubs on device code
	$(BIN)/mypy
	$(BIN)/python scripts/typecheck_device.py

# ---- evidence -----------------------------------------------------------------------------------

bench: $(READY) ## speed of the cryptography against the textbook; size of the engine against its budgets
	$(BIN)/python bench/run.py
	$(BIN)/python scripts/bench.py

bench-check: $(READY) ## fail where the engine became larger, hungrier or slower than it was recorded to be
	$(BIN)/python scripts/bench.py --check

bench-heap: $(READY) ## heap that the update agent takes beyond the imports, against its goal
	$(BIN)/python bench/bench_heap.py

bench-server: $(READY) ## load on the update server, against its goals (docs/evidence/bench-server.md)
	PYTHONPATH=tools:host_sim $(BIN)/python bench/bench_server.py

powercut: $(READY) ## cut the power at every flash state (minutes; CI does)
	$(BIN)/python -m sekisho_sim.campaign --minutes 12 --evidence docs/evidence

powercut-full: $(READY) ## the same with every second cut (hours; goes on where it was stopped)
	$(BIN)/python -m sekisho_sim.campaign --full --checkpoint build/powercut-full.jsonl --evidence docs/evidence

seeded-bugs: $(READY) ## break boot/ on purpose, bug by bug: all must be caught
	$(BIN)/python scripts/seeded_bugs.py

mutation: $(READY) ## change boot/ operator by operator: which change does no test notice?
	$(BIN)/python scripts/mutation.py

drills: $(READY) ## play the runbooks (docs/runbooks) and the flows (docs/flows) on simulated devices
	$(BIN)/python -m pytest -v --no-header -n 2 tests/drills

fuzz: $(READY) ## hostile bytes for every parser, for a bounded time
	$(BIN)/python tests/fuzz/run_all.py --seconds 60 --evidence docs/evidence

test-hawkbit: $(READY) ## the tests of the device API against the real Eclipse hawkBit (Java 17, Maven)
	$(BIN)/python scripts/hawkbit.py

test-goosebit: $(READY) ## only the tests of our device against gooseBit, a DDI server that is none of ours
	$(BIN)/python scripts/goosebit.py

test-chip: $(READY) ## the engine on genuine MicroPython firmware, on an interpreted ESP32
	$(BIN)/python scripts/chip.py

requirements: $(READY) $(NODE) $(GOOSE) ## run the tests and write docs/requirements.md
	$(BIN)/python scripts/requirements.py
	@$(BIN)/python scripts/evidence.py

docs: $(READY) ## write the pages that are generated from the code
	$(BIN)/python scripts/docs.py
	@$(BIN)/python scripts/evidence.py

audit: $(READY) ## known vulnerabilities, SBOM and licences of what the tools run on
	$(BIN)/python scripts/audit.py

# ---- housekeeping -------------------------------------------------------------------------------

lock: $(READY) ## resolve the dependencies again and write the locked requirements
	$(BIN)/python scripts/lock.py

clean: ## remove everything that was made here, .venv included
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis tests/npm/node_modules
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
