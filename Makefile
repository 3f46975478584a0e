# `make help` lists the targets. Every target sets up what it needs.
SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help setup generate report nightly publish bench test test-all lint format lock clean bench-tools bench-datastore ctr-tools encode export evaluate

DATASET ?= movielens
LIMIT ?=
ARGS ?=
TESTS ?= tests
BENCH_ARGS ?=
# Two test processes, each with whole files; integration tests, the longest, come first.
TWO_PROCESSES = --numprocesses 2 --dist loadfile --no-loadscope-reorder
# An NVIDIA GPU decides, unless BACKEND=cpu|gpu is given.
BACKEND ?= $(shell nvidia-smi -L 2>/dev/null | grep -q '^GPU ' && echo gpu || echo cpu)

# Help is shown by any Python, before anything is installed.
HELP = $(filter -h --help,$(ARGS) $(BENCH_ARGS))
needs = $(if $(HELP),,$(1))
RUN = $(if $(HELP),python=$$(PYTHON='$(PYTHON)' requirements/install.sh --find-python) && "$$python",.venv/bin/python)

unexport VIRTUAL_ENV PYTHONHOME

help: ## Show this help
	@echo "Knowledge for recommenders, generated offline with vLLM and LASER drafting."
	@echo
	@echo "Usage: make TARGET [VARIABLE=value ...]"
	@echo
	@sed -n 's/^\([a-z][a-z-]*\):.* ## \(.*\)/  \1|\2/p' $(firstword $(MAKEFILE_LIST)) \
	  | while IFS='|' read -r target text; do printf '%-18s %s\n' "$$target" "$$text"; done
	@echo
	@echo "Variables"
	@echo "DATASET=$(DATASET)   a file of configs/dataset/"
	@echo "LIMIT=n|all         n users and n items (default: 200 without a GPU, all with one)"
	@echo "ARGS=\"...\"          configuration keys and options; see make generate ARGS=--help"
	@echo "BACKEND=cpu|gpu     which build to install (this machine: $(BACKEND))"
	@echo "PYTHON=path         the python3 (3.11 or newer) that makes .venv"
	@echo "TESTS=path          what make test runs (default: tests)"
	@echo "BENCH_ARGS=\"...\"    options of make bench-datastore, such as --large; see BENCH_ARGS=--help"
	@echo
	@echo "Examples"
	@echo "  make generate DATASET=movielens"
	@echo "  make generate DATASET=movielens LIMIT=all ARGS=\"drafter=none acceptance=strict\""
	@echo "  make generate ARGS=\"dataset.raw=/data/ml-20m model.path=/models/my-model\""
	@echo "  make test TESTS=tests/unit/jobs"

setup: ## Install everything into .venv (once; about three minutes)
	@BACKEND='$(BACKEND)' PYTHON='$(PYTHON)' requirements/install.sh

generate: $(call needs,setup) ## Generate knowledge for DATASET into data/DATASET
	@$(RUN) -m jobs.generate 'dataset=$(DATASET)' $(if $(LIMIT),'limit=$(LIMIT)') $(ARGS)

report: $(call needs,setup) ## Write the report of the latest run of DATASET; ARGS="run_id=NAME" takes another
	@$(RUN) -m jobs.report 'dataset=$(DATASET)' $(ARGS)

nightly: $(call needs,setup) ## Generate what changed since the last night, and publish it
	@$(RUN) -m jobs.nightly 'dataset=$(DATASET)' $(if $(LIMIT),'limit=$(LIMIT)') $(ARGS)

publish: $(call needs,setup) ## Publish a run: ARGS="run_id=..."; or ARGS=list, ARGS=rollback
	@$(RUN) -m jobs.publish 'dataset=$(DATASET)' $(ARGS)

test: ctr-tools ## Run the unit and integration tests
	@.venv/bin/python -m pytest -q $(TWO_PROCESSES) -m 'not slow and not gpu' $(TESTS)

test-all: ctr-tools ## Run the tests that take minutes too: faults, nights, domains, jobs on a cluster
	@.venv/bin/python -m pytest -q -m 'not gpu' $(TESTS)

encode: $(call needs,setup) ## Turn the published texts of DATASET into vectors; ARGS="encoder=... encoder.reduced_dim=64"
	@$(RUN) -m jobs.encode 'dataset=$(DATASET)' $(ARGS)

export: $(call needs,setup) ## Write the vectors for FuxiCTR, RecBole, KAR and torch
	@$(RUN) -m jobs.export 'dataset=$(DATASET)' $(ARGS)

ctr-tools: setup ## Install the CTR libraries (FuxiCTR, torch-rechub, RecBole) that exports are tested with
	@requirements/install_ctr.sh

evaluate: $(call needs,ctr-tools) ## Compare CTR models with and without knowledge, greedy against relaxed (half an hour)
	@$(RUN) -m jobs.evaluate 'dataset=$(DATASET)' $(if $(LIMIT),'limit=$(LIMIT)') $(ARGS)

bench-tools: setup ## Install the peers to measure against (Arctic's suffix tree; compiles, two minutes)
	@requirements/install_bench.sh

bench: $(call needs,bench-tools) ## Compare decoding methods side by side; BENCH_ARGS="model.path=... bench.num_repeats=2"
	@$(RUN) -m jobs.benchmark 'dataset=$(DATASET)' $(BENCH_ARGS)

bench-datastore: $(call needs,bench-tools) ## Measure the token pools beside Arctic's suffix tree
	@$(RUN) -m drafters.bench_datastore $(BENCH_ARGS)

lint: setup ## Check style (ruff) and types (mypy)
	@.venv/bin/python -m ruff check .
	@.venv/bin/python -m ruff format --check .
	@.venv/bin/python -m mypy

format: setup ## Rewrite the code in the house format
	@.venv/bin/python -m ruff check --fix .
	@.venv/bin/python -m ruff format .

lock: setup ## Resolve requirements/*.in into fully pinned lists
	@sh requirements/lock.sh "$(CURDIR)/.venv/bin/python"

clean: ## Remove .venv and caches; data/ is kept
	@rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis build *.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
