# Thin: set-up, then Snakemake or pytest. `make all` and `make test` are all most people need.
SNAKEMAKE = .venv/bin/snakemake
# One more than cores, since some tests do nothing but wait; a file's tests never run side by side.
PYTEST = pytest -n $$(($$(nproc) + 1)) --dist loadfile --no-loadscope-reorder
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: all figures figures-from-tables fig1a fig1b fig2 fig3a fig7 slowtime theory communication claims compare \
  extensions report reference readme status plan doctor costs test test-all bench gpu lint audit format lock schemas setup

all figures fig1a fig1b fig2 fig3a fig7 slowtime theory communication claims compare: .venv/complete
	$(SNAKEMAKE) $@

# What the paper does not ask (docs/extensions.md): three experiments, their figures, verdicts and report, in
# results/extensions/
extensions: .venv/complete
	$(SNAKEMAKE) all --config scale=extensions
	$(SNAKEMAKE) all --config scale=extensions --report results/extensions/report.html

# Figures, claims, settings and times in one HTML file that needs no network; of what `make all` made
report: .venv/complete
	results=$$(python -m workflow results) && $(SNAKEMAKE) all --report "$$results/report.html"

# All figures and verdicts of the reference results, without training: results/laptop-from-tables/
figures-from-tables: .venv/complete
	$(SNAKEMAKE) figures claims --config tables=results/reference/laptop/tables

# What `make all` made becomes the reference, of SCALE=… instead of the laptop scale; README's table follows.
# FIGURES="qsr outer controls": which pictures are kept
FIGURES = fig1a
reference: .venv/complete
	scale=$(or $(SCALE),laptop); to=results/reference/$$scale; mkdir -p $$to/tables && \
	  cp results/$$scale/tables/*.csv $$to/tables/ && \
	  cp results/$$scale/claims.csv results/$$scale/runs.csv $(FIGURES:%=results/$$scale/figures/%.png) $$to/
	$(MAKE) readme

readme: .venv/complete
	python -m workflow.analysis readme --reference results/reference/laptop

# Which runs are done; what the next call would train; whether this machine has what they need; what figures cost. SCALE=paper: of
# that scale instead of config.yaml's
status plan doctor costs: .venv/complete
	@python -m workflow $@ $(if $(SCALE),--scale $(SCALE))

test: .venv/complete
	$(PYTEST)

# With every variant and kind of failure
test-all: .venv/complete
	$(PYTEST) -m ''

# Timings, on a machine that does nothing else; adds to results/bench.jsonl
bench: .venv/complete
	python -m bench

# On a machine with an NVIDIA GPU, and no network: checks, timings and the beginning of the authors' Figure 1(a), in
# 24 minutes, to results/gpu/. Without a GPU a dry run. It sets nothing up: PYTHON=… has torch and pytest (docs/gpu.md)
PYTHON = python3
gpu:
	$(PYTHON) -m bench.gpu $(GPU_OPTIONS)

lint: .venv/complete
	ruff check .
	ruff format --check .
	mypy
	lint-imports
	snakefmt --check Snakefile workflow
	$(SNAKEMAKE) --lint

# Known vulnerabilities of the locked packages; needs the network, and fails without
audit: .venv/complete
	python -m venv .venv/audit
	.venv/audit/bin/pip install --quiet pip-audit
	.venv/audit/bin/pip-audit --strict --no-deps --disable-pip --requirement requirements.lock

format: .venv/complete
	ruff check --fix .
	ruff format .
	snakefmt Snakefile workflow

# After a change of the settings' models
schemas: .venv/complete
	python -m workflow.json_schemas

# After a change of pyproject.toml's dependencies; needs the network
lock: .venv/complete
	pip-compile --quiet --allow-unsafe --extra dev --strip-extras --upgrade --no-emit-index-url \
	  --no-emit-find-links --no-emit-trusted-host --no-emit-options --no-header \
	  --output-file requirements.lock pyproject.toml

setup: .venv/complete

.venv/complete: requirements.lock pyproject.toml envs/setup.sh
	bash envs/setup.sh
