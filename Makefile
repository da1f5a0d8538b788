# Thin: set-up, then Snakemake or pytest. `make` prints the targets; `make all` and `make test` are all most people need.
SNAKEMAKE = .venv/bin/snakemake
# One more than cores, since some tests do nothing but wait; a file's tests never run side by side.
PYTEST = pytest -n $$(($$(nproc) + 1)) --dist loadfile --no-loadscope-reorder
PIP_COMPILE = pip-compile --quiet --strip-extras --no-emit-index-url --no-emit-find-links --no-emit-trusted-host \
  --no-emit-options --no-header --upgrade
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: help all figures figures-from-tables fig1a fig1b fig2 fig3a fig7 slowtime theory communication claims compare \
  extensions report reference readme status plan doctor costs test test-all bench gpu docs lint audit format lock schemas setup

help: ## print this list
	@awk -F ':.*## ' '/^[a-z].*:.*## / {printf "%-20s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

all: ## train, draw and judge everything: results/laptop/ (config.yaml: another scale)
fig1a fig1b fig2 fig3a fig7 slowtime theory communication: ## one figure, with the runs that it needs
figures claims: ## all figures; all verdicts
compare: ## your tables against those in results/reference/
all figures fig1a fig1b fig2 fig3a fig7 slowtime theory communication claims compare: .venv/complete
	$(SNAKEMAKE) $@

extensions: .venv/complete ## what the paper does not ask: QSR, outer momentum, controls: results/extensions/
	$(SNAKEMAKE) all --config scale=extensions
	$(SNAKEMAKE) all --config scale=extensions --report results/extensions/report.html

report: .venv/complete ## what `make all` made in one HTML file that needs no network
	results=$$(python -m workflow results) && $(SNAKEMAKE) all --report "$$results/report.html"

figures-from-tables: .venv/complete ## draw and judge the reference tables without training: results/laptop-from-tables/
	$(SNAKEMAKE) figures claims --config scale=laptop tables=results/reference/laptop/tables

status: ## which runs are done, running, failed, stopped, stale or missing (SCALE=paper: of that scale)
plan: ## what the next call would train, and what it would repeat
doctor: ## whether this machine has what the scale needs
costs: ## what each figure costs, by an estimate
status plan doctor costs: .venv/complete
	@python -m workflow $@ $(if $(SCALE),--scale $(SCALE))

test: .venv/complete ## run the tests
	$(PYTEST)

test-all: .venv/complete ## … with every variant and kind of failure
	$(PYTEST) -m ''

bench: .venv/complete ## measure speed, on a machine that does nothing else; adds to results/bench.jsonl
	python -m bench

# It sets nothing up: PYTHON=… has torch and pytest (docs/gpu.md). Without a GPU a dry run.
PYTHON ?= python3
gpu: ## on a machine with an NVIDIA GPU: checks, timings and the authors' Figure 1(a), in 24 minutes, to results/gpu/
	$(PYTHON) -m bench.gpu $(GPU_OPTIONS)

docs: .venv/docs/complete ## README.md and docs/ as a site: site/index.html
	NO_MKDOCS_2_WARNING=1 .venv/docs/bin/mkdocs build --strict --quiet

lint: .venv/complete ## check format, types, docstrings, imports and the workflow
	ruff check .
	ruff format --check .
	mypy
	lint-imports
	snakefmt --check Snakefile workflow
	$(SNAKEMAKE) --lint

format: .venv/complete ## format the code
	ruff check --fix .
	ruff format .
	snakefmt Snakefile workflow

audit: .venv/complete ## ask the network for known vulnerabilities of the locked packages
	python -m venv .venv/audit
	.venv/audit/bin/pip install --quiet pip-audit
	.venv/audit/bin/pip-audit --strict --no-deps --disable-pip --requirement requirements.lock

# FIGURES="qsr outer controls": which pictures are kept; Figure 1(a), where the scale has it
FIGURES = $(basename $(notdir $(wildcard results/$(or $(SCALE),laptop)/figures/fig1a.png)))
reference: .venv/complete ## what `make all` made becomes the reference (SCALE=…: of that scale)
	scale=$(or $(SCALE),laptop); to=results/reference/$$scale; mkdir -p $$to/tables && \
	  cp results/$$scale/tables/*.csv $$to/tables/ && \
	  cp results/$$scale/claims.csv results/$$scale/runs.csv $(FIGURES:%=results/$$scale/figures/%.png) $$to/
	$(MAKE) readme

readme: .venv/complete ## write the reference verdicts into README.md and docs/claims.md
	python -m workflow.analysis readme --reference results/reference

schemas: .venv/complete ## after a change of the settings' models
	python -m workflow.json_schemas

lock: .venv/complete ## after a change of pyproject.toml's dependencies; needs the network
	$(PIP_COMPILE) --allow-unsafe --extra dev --output-file requirements.lock pyproject.toml
	python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["docs"], sep="\n")' | \
	  $(PIP_COMPILE) --constraint requirements.lock --output-file requirements-docs.lock -

setup: .venv/complete ## install everything into .venv

.venv/complete: requirements.lock pyproject.toml envs/setup.sh
	bash envs/setup.sh

# Apart from .venv's packages: neither needs the other
.venv/docs/complete: requirements-docs.lock
	python3 -m venv .venv/docs
	.venv/docs/bin/pip install --quiet --disable-pip-version-check -r requirements-docs.lock
	touch $@
