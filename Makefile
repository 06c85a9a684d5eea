# One word a task. Each does its own set-up; nothing has to be installed by hand before.
#   make demo    two devices, the main job, start to end, and a browser at its end (NO_WAIT=1)
#   make test    all tests, boxes included
#   make check   format, lint, types, imports, links of docs     make bench   ratios against floors and peers
#   make soak    the long runs in their stated counts           make lock    pin the newest dependencies
#   make security   the batteries of attacks in their stated counts, each with what came of it
#   make cluster    three NATS servers that are killed in turn, again and again
#   make fleet   a fleet of 50 agents under faults (HARMONY_AGENTS=…, HARMONY_SEED=…), and 10,000 devices (HARMONY_DEVICES=…)
#   make wheel   what is installed on a Pi and on an operator's machine, with locks and lists of what is in it
#   make install what an operator's machine needs, into ~/harmony (PREFIX=…, WITH=serve, WITH=pkcs11)
#   make page    the page of `harmony serve`, from its sources (npm)
#   make picture the pictures of README and docs, taken anew (Chromium)
#   make docs    the documentation as a site, into build/site
#   make path    the modules and functions that one pushed line of a file runs

SHELL := /bin/bash
# Thousands of processes import the same modules in a test run: compiled once, whatever the machine's settings.
unexport PYTHONDONTWRITEBYTECODE
# The first that is there: Debian 12 has 3.11, Ubuntu 24.04 has 3.12, Debian 13 has 3.13.
PYTHON ?= $(firstword $(foreach each,python3.11 python3.12 python3.13,$(if $(shell command -v $(each)),$(each))) python3.11)
VENV := .venv
RUN := $(VENV)/bin
STAMP := $(VENV)/.installed
SOURCES := harmony_core harmony_scores harmony_pi_topology harmony_agent harmony_control deploy tests examples benchmarks
LINES ?=
TESTS ?= tests
# Twice as many processes as there are cores, since most tests wait. Each has a
# network of its own where it boots boxes. The longest files come first (tests/conftest.py). What ended a process would
# end the next one too.
PROCESSES ?= $(shell echo $$(($$(nproc) * 2)))
SIDE_BY_SIDE := --numprocesses $(PROCESSES) --dist loadfile --no-loadscope-reorder --max-worker-restart 0

# The tool advertises what is to follow it.
BUILD_SITE := NO_MKDOCS_2_WARNING=1 $(RUN)/mkdocs build --strict

.PHONY: wheel install picture page path docs demo boxes test check mypy pyright bench soak security fleet cluster lock setup format clean

setup: $(STAMP)

$(STAMP): pyproject.toml requirements/build.lock requirements/dev.lock
	@# Debian ships venv apart from Python itself.
	$(PYTHON) -c 'import ensurepip' 2>/dev/null || (apt-get update -q && apt-get install -qy $(notdir $(PYTHON))-venv)
	$(PYTHON) -m venv $(VENV)
	$(RUN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/build.lock
	$(RUN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-build-isolation \
	    -r requirements/dev.lock
	$(RUN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

demo: $(STAMP)
	@$(RUN)/python -m examples.demo $(if $(NO_WAIT),--no-wait)

# The wheel, the locks with which pip installs it, and what is in it (CycloneDX). The same commit gives the same bytes.
# The tool warns that it cannot tell who needs whom: a lock does not say so.
wheel: $(STAMP)
	@rm -rf dist
	@$(RUN)/python -m hatchling build -t wheel
	@$(RUN)/python -m deploy.locks dist
	@for end in agent control serve pkcs11; do \
	    cat requirements/build.lock requirements/$$end.lock | $(RUN)/python -W ignore -m cyclonedx_py requirements \
	        --output-reproducible --pyproject pyproject.toml --mc-type application \
	        --output-file dist/harmony-$$end.cdx.json - || exit; \
	done

PREFIX ?= $(HOME)/harmony
# control, or serve, which has what `harmony serve` needs beside, or pkcs11, for keys in hardware tokens.
WITH ?= control
PIP_INSTALL := $(PREFIX)/bin/python -m pip --quiet --disable-pip-version-check install --require-hashes

# Harmony for an operator's machine. Run again, it installs what is new, or not whole.
install: wheel
	@$(PYTHON) harmony_control/_forget_broken.py $(PREFIX) dist/harmony-*.whl
	@$(PYTHON) -m venv $(PREFIX)
	@$(PIP_INSTALL) -r dist/build.lock
	@$(PIP_INSTALL) --no-build-isolation -r dist/$(WITH).lock
	@$(PREFIX)/bin/harmony --version

# What boxes stand on is made before any test's time begins to run; where it cannot be, the tests say why.
boxes: $(STAMP)
	@[ "$$(id -u)" != 0 ] || $(RUN)/python -m tests.box build || true
	@[ "$$(id -u)" != 0 ] || $(RUN)/python -m tests.prometheus || true

test: $(STAMP) $(if $(filter tests,$(TESTS)),boxes)
	$(RUN)/python -m pytest $(SIDE_BY_SIDE) $(TESTS)

HOURS := --timeout 7200 --override-ini faulthandler_timeout=7500

# Each has a mark of the same name.
soak security: $(STAMP)
	HARMONY_SOAK=1 $(RUN)/python -m pytest $(SIDE_BY_SIDE) -m $@ $(HOURS) $(TESTS)

# Two tests, which have processes enough of their own; they tell as they go.
fleet: $(STAMP)
	HARMONY_SOAK=1 $(RUN)/python -m pytest -m $@ $(HOURS) --capture no tests/faults tests/scale

# It tells as it goes.
cluster: $(STAMP)
	HARMONY_SOAK=1 $(RUN)/python -m pytest -m soak $(HOURS) --capture no tests/control/test_cluster.py

picture: $(STAMP)
	@$(RUN)/python -m examples.life
	@$(RUN)/python -m examples.picture
	@$(RUN)/python -m examples.dashboard

bench: $(STAMP)
	@$(RUN)/python -m benchmarks $(LINES)

path: $(STAMP)
	@$(RUN)/python -m benchmarks.path_of_a_push --functions

check: $(STAMP)
	$(RUN)/ruff format --check --quiet $(SOURCES)
	$(RUN)/ruff check --quiet $(SOURCES)
	$(RUN)/lint-imports --no-logo
	@$(MAKE) --no-print-directory --jobs 2 --output-sync mypy pyright
	@$(RUN)/python -m deploy.page --check
	@# With --quiet, it would count no warning.
	@$(BUILD_SITE)

mypy: $(STAMP)
	$(RUN)/mypy

pyright: $(STAMP)
	PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(RUN)/pyright --level error

# A link to a page or a heading that is not there ends it, as does a page that the navigation does not have.
docs: $(STAMP)
	@$(BUILD_SITE)

# The page of `harmony serve`, from its sources; what it is built into is in the tree.
page: $(STAMP)
	@$(RUN)/python -m deploy.page

format: $(STAMP)
	$(RUN)/ruff format --quiet $(SOURCES)
	$(RUN)/ruff check --fix --quiet $(SOURCES)

# Names, versions and hashes only: where packages come from is each machine's own matter. What is installed somewhere has
# the versions that were tested: those of dev.lock.
COMPILE := $(RUN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
    --no-emit-index-url
lock: $(STAMP)
	$(COMPILE) --all-extras --group dev --group build --output-file requirements/dev.lock pyproject.toml
	for end in agent control; do \
	    $(COMPILE) --constraint requirements/dev.lock --extra $$end --output-file requirements/$$end.lock pyproject.toml || exit; \
	done
	$(COMPILE) --constraint requirements/dev.lock --extra control --extra serve --output-file requirements/serve.lock pyproject.toml
	$(COMPILE) --constraint requirements/dev.lock --extra control --extra pkcs11 --output-file requirements/pkcs11.lock pyproject.toml
	$(COMPILE) --constraint requirements/dev.lock --group build --output-file requirements/build.lock

clean:
	rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache
