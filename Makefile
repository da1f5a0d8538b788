# Thin: set-up, then Snakemake or pytest. `make figures` and `make test` are all most people need.
SNAKEMAKE = .venv/bin/snakemake
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: figures fig1a test bench lint format lock schemas setup

figures fig1a: .venv/complete
	$(SNAKEMAKE) $@

test: .venv/complete
	pytest -n auto --dist loadfile

# Timings, on a machine that does nothing else; adds to results/bench.jsonl
bench: .venv/complete
	python -m bench

lint: .venv/complete
	ruff check .
	ruff format --check .
	mypy
	snakefmt --check Snakefile workflow
	$(SNAKEMAKE) --lint

format: .venv/complete
	ruff check --fix .
	ruff format .
	snakefmt Snakefile workflow

# After a change of the settings' models
schemas: .venv/complete
	python -m workflow.experiments

# After a change of pyproject.toml's dependencies; needs the network
lock: .venv/complete
	pip-compile --quiet --allow-unsafe --extra dev --strip-extras --upgrade --no-emit-index-url \
	  --no-emit-find-links --no-emit-trusted-host --no-emit-options --no-header \
	  --output-file requirements.lock pyproject.toml

setup: .venv/complete

.venv/complete: requirements.lock pyproject.toml envs/setup.sh
	bash envs/setup.sh
