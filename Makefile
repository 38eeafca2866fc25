# One command each, the same on every machine. `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
ARGS ?=
AIRMEDIC_HOME := $(CURDIR)/.airmedic
# uv from the PATH, else a private one; either way this machine's Python is used, none is downloaded.
UV := $(or $(shell command -v uv 2>/dev/null),$(AIRMEDIC_HOME)/tools/bin/uv)
export UV_PYTHON_DOWNLOADS := never
RUN := $(UV) run --frozen --no-sync

.PHONY: browser e2e-browser screenshots bench-consoles bench-faults help setup airflow demo test check format e2e bench fuzz bench-idle bench-alertmanager bench-langgraph-dev bench-listing clean

help: ## this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

$(AIRMEDIC_HOME)/tools/bin/uv:
	@echo "installing uv into .airmedic/"
	@python3 -m venv $(AIRMEDIC_HOME)/tools
	@$(AIRMEDIC_HOME)/tools/bin/pip install --quiet --disable-pip-version-check 'uv>=0.9'

setup: $(UV) ## install Airmedic's own packages
	@$(UV) sync --frozen --quiet

airflow: $(UV) ## install the Airflow that demo and tests heal
	@cd airflow && $(UV) sync --frozen --quiet

demo: setup ## break a real pipeline and watch it heal (ARGS="--once --yes", see --help)
	@$(RUN) airmedic demo $(ARGS)

test: setup airflow ## the whole test suite, the real-Airflow tests included (the console's need `make browser` once)
	@$(RUN) pytest $(ARGS)
	@cd airflow && $(UV) run --frozen --no-sync pytest -q

e2e: setup airflow ## only the tests that need the real Airflow
	@$(RUN) pytest -m integration $(ARGS)

browser: setup ## install Debian's Chromium when no Chromium is here (through apt; no other download)
	@command -v chromium chromium-browser google-chrome >/dev/null || { \
		as=$$([ "$$(id -u)" = 0 ] || echo sudo); \
		$$as apt-get update -qq && DEBIAN_FRONTEND=noninteractive $$as apt-get install -y -qq --no-install-recommends chromium; }

e2e-browser: setup airflow browser ## only the tests of the console in a real browser
	@$(RUN) pytest -m browser tests/browser $(ARGS)

screenshots: setup browser ## every page, light and dark, desktop and phone, into .airmedic/screenshots
	@$(RUN) python -m tests.browser.screenshots $(ARGS)

bench-consoles: setup ## what open consoles cost the server
	@$(RUN) python -m evals.benchmarks.consoles $(ARGS)

bench: setup ## throughput of log scanning and of redaction, beside their baselines
	@$(RUN) python -m evals.benchmarks.scan
	@$(RUN) python -m evals.benchmarks.redaction

bench-faults: setup airflow ## every fault of the catalogue on a real Airflow (ARGS="--repeat 3", goes on where it stopped)
	@$(RUN) airmedic eval faults --lanes 2 --report .airmedic/bench/report $(ARGS)

fuzz: setup ## random and stateful requests against the whole API (at least 10,000)
	@$(RUN) python -m tests.acceptance.fuzz $(ARGS)

bench-idle: setup ## memory, processor and start of an idle server, with and without the console
	@$(RUN) python -m evals.benchmarks.idle $(ARGS)

bench-alertmanager: ## install Debian's Alertmanager, which `airmedic bench storm` measures beside us (through apt)
	@command -v prometheus-alertmanager >/dev/null || { \
		as=$$([ "$$(id -u)" = 0 ] || echo sudo); \
		$$as apt-get update -qq && DEBIAN_FRONTEND=noninteractive $$as apt-get install -y -qq --no-install-recommends prometheus-alertmanager; }

bench-langgraph-dev: setup ## install `langgraph dev` apart (Elastic licence), which `airmedic bench heal` measures beside us
	@test -x .airmedic/langgraph-dev/bin/langgraph || { $(UV) venv -q --python 3.11 .airmedic/langgraph-dev && \
		$(UV) pip install -q --python .airmedic/langgraph-dev/bin/python 'langgraph-cli[inmem]'; }

bench-listing: setup ## lists and searches over a million incidents
	@$(RUN) python -m evals.benchmarks.listing $(ARGS)

check: setup airflow ## format, lint, strict types, import layers
	@$(RUN) ruff format --check .
	@$(RUN) ruff check .
	@$(RUN) mypy
	@$(RUN) lint-imports
	@cd airflow && $(UV) run --frozen --no-sync ruff format --check . && $(UV) run --frozen --no-sync ruff check .

format: setup ## mend format and what the linter can mend
	@$(RUN) ruff format . && $(RUN) ruff check --fix .

clean: ## remove what was installed and built here
	@rm -rf .venv .airmedic airflow/.venv logs build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
