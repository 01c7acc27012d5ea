# `make` lists the targets. PYTHON, VENV, CONSTRAINTS, DEMO_ARGS, PYTEST_ARGS and BENCHMARKS may be overridden.
PYTHON ?= python3
VENV ?= .venv
CONSTRAINTS ?= constraints.txt
DEMO_ARGS ?=
PYTEST_ARGS ?=
BENCHMARKS ?= $(patsubst benchmarks/%.py,%,$(filter-out benchmarks/_%.py benchmarks/peers.py,$(wildcard benchmarks/*.py)))

RUN := $(VENV)/bin/python -m
PYTEST := $(RUN) pytest -n auto --dist=worksteal --durations=10

.DEFAULT_GOAL := help
.PHONY: help demo curves tutorials test test-fast test-system test-statistical test-nightly test-lowest lint docs dist \
	release-check bench bench-peers bench-forecasters clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 20

demo: $(VENV)/.installed-plots  ## fit a model in a minute and show what it learned
	$(RUN) pyro_ssl.demo $(DEMO_ARGS)

curves: $(VENV)/.installed-plots  ## track and forecast four noisy curves, drawn in curves.png
	$(RUN) pyro_ssl.demo.curves $(DEMO_ARGS)

tutorials: $(VENV)/.installed-test  ## run the tutorials in full and keep their outputs
	$(RUN) tutorials.build

test: $(VENV)/.installed-test  ## all tests but the nightly ones: what CI runs
	$(PYTEST) --stage=all $(PYTEST_ARGS)

test-fast: $(VENV)/.installed-test  ## unit tests
	$(PYTEST) --stage=unit $(PYTEST_ARGS)

test-system: $(VENV)/.installed-test  ## tests of whole jobs: stopped, killed, over several processes
	$(PYTEST) --stage=system $(PYTEST_ARGS)

test-statistical: $(VENV)/.installed-test  ## tests of distributions, by many draws
	$(PYTEST) --stage=statistical $(PYTEST_ARGS)

test-nightly: $(VENV)/.installed-test  ## the long ones, seeded by the date
	$(PYTEST) --stage=nightly --timeout=21600 $(PYTEST_ARGS)

test-lowest:  ## unit and system tests with the oldest versions that are allowed, in an environment of its own
	$(MAKE) test-fast test-system VENV=.venv-lowest CONSTRAINTS=constraints-lowest.txt

lint: $(VENV)/.installed-dev  ## ruff and mypy
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) mypy

docs: $(VENV)/.installed-docs  ## the documentation, in docs/_build/html; any warning is an error
	$(RUN) sphinx -W --keep-going -n -q -E -b html docs docs/_build/html

dist: $(VENV)/.installed-release  ## an sdist and a wheel
	rm -rf build dist
	$(RUN) build

release-check: dist  ## the wheel in an empty environment, the tests from the unpacked sdist
	$(RUN) twine check --strict dist/*
	$(VENV)/bin/check-wheel-contents dist/*.whl
	$(PYTHON) -m venv build/empty
	build/empty/bin/python -m pip install --quiet -c $(CONSTRAINTS) dist/*.whl
	cd build && CI=1 empty/bin/python -P ../tests/markdown.py ../README.md
	mkdir build/sdist
	tar -xzf dist/*.tar.gz --strip-components 1 -C build/sdist
	$(MAKE) -C build/sdist test-fast test-system VENV=$(CURDIR)/build/empty CONSTRAINTS=$(abspath $(CONSTRAINTS))

bench: $(VENV)/.installed-plots  ## each benchmark in turn
	@set -e; for name in $(BENCHMARKS); do echo "== $$name"; $(RUN) benchmarks.$$name; done

bench-peers:  ## beside JAX and particles, in an environment of its own
	$(MAKE) VENV=.venv-bench .venv-bench/.installed-bench
	OMP_NUM_THREADS=1 .venv-bench/bin/python -m benchmarks.peers

bench-forecasters:  ## beside a temporal fusion transformer, and ARIMA, in an environment of its own; PM25=FOLDER SML2010=FOLDER
	$(MAKE) VENV=.venv-forecasters .venv-forecasters/.installed-forecasters
	OMP_NUM_THREADS=1 .venv-forecasters/bin/python -m benchmarks.imv_ahead --transformer --path "$(PM25)"
	OMP_NUM_THREADS=1 .venv-forecasters/bin/python -m benchmarks.sensors --methods arima --pm25 "$(PM25)" --sml2010 "$(SML2010)"

clean:  ## remove what builds and tests leave behind (not the environment)
	rm -rf build dist docs/_build docs/made docs/tutorials *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -exec rm -rf {} +

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# One stamp for each extra: nothing is reinstalled until these files change.
$(VENV)/.installed-%: pyproject.toml $(CONSTRAINTS) setup.py $(wildcard pyro_ssl/kernels/src/*) | $(VENV)/bin/python
	$(RUN) pip install --quiet -c $(CONSTRAINTS) -e '.[$*]'
	@touch $@

# These take no pandas as new as the one that is pinned.
$(VENV)/.installed-forecasters: pyproject.toml $(CONSTRAINTS) setup.py | $(VENV)/bin/python
	grep -v '^pandas==' $(CONSTRAINTS) > $(VENV)/constraints.txt
	$(RUN) pip install --quiet -c $(VENV)/constraints.txt -e '.[forecasters]'
	@touch $@
