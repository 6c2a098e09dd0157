# The front door. `make help` lists the targets; every target that needs the environment sets it up by itself.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

export PYTHONSAFEPATH := 1
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
NODE ?=
# Test processes side by side, each with servers of its own; most tests wait for servers rather than compute.
JOBS ?= 2

.PHONY: help setup demo up down run-worker generate check lint security sbom test coverage faults redrive-load bench bench-inbox clean lock

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  \033[36m%-12s\033[0m %s\n", $$1, $$2}'

setup: $(STAMP) ## make .venv with the omninode command in it

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) deployment/setup_environment.py .venv requirements.lock
	@touch $(STAMP)

demo: $(STAMP) ## kill a worker in mid-work and prove that nothing is lost or doubled
	@$(BIN)/omninode demo

up: $(STAMP) ## start a local Kafka and PostgreSQL, with topics and tables
	@$(BIN)/omninode infra up
	@$(BIN)/omninode topics apply
	@$(BIN)/omninode migrate

down: $(STAMP) ## stop what `make up` started
	@$(BIN)/omninode infra down

run-worker: $(STAMP) ## run one worker: make run-worker NODE=postgres_adapter
	@$(BIN)/omninode run --check $(NODE)
	@$(MAKE) --no-print-directory up
	@exec $(BIN)/omninode run $(NODE)

generate: $(STAMP) ## write all nodes from their contracts
	@$(BIN)/omninode generate

check: lint security ## lint, security gates, types, layers, contracts, generated files
	@echo "types";   $(BIN)/mypy && MYPYPATH=tests/faults/nodes $(BIN)/mypy --explicit-package-bases --exclude tests/generator/golden tests
	@echo "layers";  $(BIN)/lint-imports --no-logo
	@echo "contracts"; $(BIN)/omninode contract lint && $(BIN)/omninode topics lint
	@echo "generated files"; $(BIN)/omninode generate --check && $(BIN)/omninode schemas export --check

lint: $(STAMP) ## ruff: rules and format
	@echo "lint"; $(BIN)/ruff check . && $(BIN)/ruff format --check .

security: $(STAMP) ## no SQL from strings, no secrets in files, no known vulnerabilities (ARGS=--required: data must be there)
	@echo "security"; $(BIN)/python deployment/security/no_dynamic_sql.py && $(BIN)/python deployment/security/secret_scan.py
	@$(BIN)/python deployment/security/dependency_audit.py $(ARGS)

sbom: $(STAMP) ## write a CycloneDX bill of materials of what is pinned (ARGS=FILE; default: dist/sbom.cdx.json)
	@$(BIN)/python deployment/security/sbom.py $(ARGS)

test: check ## everything CI runs: checks, then all tests on real servers
	@$(BIN)/pytest -n $(JOBS)

coverage: $(STAMP) ## all tests with branch coverage; fails below 90 % of the foundation or 80 % of the nodes
	@$(BIN)/coverage erase
	@$(BIN)/pytest -n $(JOBS) --cov --cov-report= $(ARGS)
	@echo "foundation"; $(BIN)/coverage report --include='*/shared/*,*/topics/*' --omit='*/shared/testing/*' --fail-under=90
	@echo "nodes";      $(BIN)/coverage report --include='*/workers/*' --fail-under=80

faults: $(STAMP) ## put every fault on real workers; print what was lost or doubled (ARGS="--soak 30 --seed 1": for long)
	@env -u PYTHONSAFEPATH $(BIN)/python -m tests.faults.bench $(ARGS)

redrive-load: $(STAMP) ## group, list and redrive 100,000 dead letters beside live load, interrupted and killed
	@OMNIBASE_TEST_DEAD_LETTERS=100000 $(BIN)/pytest -s -q tests/integration/test_redrive_under_load.py

bench: $(STAMP) ## measure, side by side in one run, into docs/benchmarks.md (ARGS=--quick: a short look)
	@env -u PYTHONSAFEPATH $(BIN)/python -m tests.performance.bench $(ARGS)

bench-inbox: $(STAMP) ## measure inbox and outbox as they grow (ARGS="--rows 50000000 --days 36": as a release does)
	@env -u PYTHONSAFEPATH $(BIN)/python -m tests.performance.inbox_growth $(ARGS)

clean: ## stop local servers, remove .venv, caches and local data
	@if [ -x $(BIN)/omninode ]; then $(BIN)/omninode infra down --delete-data; fi
	rm -rf .venv .omnibase .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis dist build

lock: $(STAMP) ## renew requirements.lock from pyproject.toml
	$(BIN)/uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --generate-hashes \
	  --no-header --no-annotate --no-emit-index-url --quiet --output-file requirements.lock
