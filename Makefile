# Each target runs the set-up that it needs. `make` alone lists the targets.

BIN := .venv/bin
SUITABLE := -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null
# Prefer the system's own python3: its headers and its venv module are most likely installed.
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python $(SUITABLE) && echo $$python && break; done)
SCRIPT = @python="$(PYTHON)"; "$$python" $(SUITABLE) || { \
	echo 'loaderbench needs Python 3.11, 3.12 or 3.13: install one, or name it: make PYTHON=/path/to/python3' >&2; \
	exit 1; }; "$$python" scripts
SETUP = $(SCRIPT)/setup.py

CAMPAIGN ?= quick
# Paths reach the programs as they were typed, through the environment: neither make nor the shell reads them.
TYPED = BASELINE CAMPAIGN DATA DEMAND FFCV_WHEEL MODEL OUT WHEELS
$(foreach name,$(TYPED),$(eval override $(name) := $$(value $(name))))
export $(TYPED)
DATA_OPTION = $(if $(DATA),--data "$$DATA")

.DEFAULT_GOAL := help
.PHONY: help setup tools ffcv-wheel data bench bench-s3 doctor gpu-check report perf overhead resolution honest clinic \
	unpacking s3-rate test test-slow lint audit docs format lock clean

help:  ## list the targets
	@echo 'Start with make bench.'
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup:  ## install everything into .venv; FFCV_WHEEL=file.whl takes a wheel that was built elsewhere, WHEELS=folder all of them
	$(SETUP) environment

ffcv-wheel:  ## build the portable FFCV wheel and copy it to dist/
	$(SETUP) wheel

data: setup  ## prepare the images and every format; DATA=path or DATA=s3://bucket/prefix uses your own images
	$(BIN)/loaderbench prepare "$$CAMPAIGN" $(DATA_OPTION) $(BENCH_ARGS)

bench: setup  ## compare the loaders on this machine: prepare, measure (resumes), report; DATA=... as above, CAMPAIGN=standard
	$(BIN)/loaderbench bench "$$CAMPAIGN" $(DATA_OPTION) $(BENCH_ARGS)

bench-s3: setup  ## the same with the synthetic images in a bucket, on an S3 server that it starts on loopback
	$(BIN)/python -m tests.perf.on_s3 bench "$$CAMPAIGN" $(BENCH_ARGS)

doctor: setup  ## say what holds back training on your images: DATA=... as above; DEMAND=8000 images/s, or MODEL=resnet50
	$(BIN)/loaderbench doctor $(DATA_OPTION) $(if $(DEMAND),--demand "$$DEMAND") $(if $(MODEL),--model "$$MODEL") $(BENCH_ARGS)

gpu-check:  ## try everything on an NVIDIA GPU in ten minutes, set-up included, into results/gpu-check; OUT=folder
	$(SCRIPT)/gpu_check.py "$$OUT"

report: setup  ## write the report and its plots again
	$(BIN)/loaderbench report "results/$$CAMPAIGN"

# Laps of a loader alternate with laps of a reference; only ratios within one run are compared.
PERF_FILE := results/perf/$(shell date -u +%Y%m%dT%H%M%SZ).json

perf: setup  ## measure the loaders for regressions; BASELINE=earlier.json fails if one became slower or is gone
	@$(if $(BASELINE),$(BIN)/loaderbench compare "$$BASELINE" "$$BASELINE" >/dev/null)
	@mkdir -p $(dir $(PERF_FILE))
	$(BIN)/pytest tests/perf --benchmark-json=$(PERF_FILE) $(if $(PLANT),--plant=$(PLANT))
	@$(if $(BASELINE),$(BIN)/loaderbench compare "$$BASELINE" $(PERF_FILE),\
		echo 'After your change: make perf BASELINE=$(PERF_FILE)')

overhead: setup  ## compare trials with bare loops over the same loaders, and with what is known of the pace loader
	$(BIN)/python -m tests.perf.known
	$(BIN)/python -m tests.perf.per_batch
	$(BIN)/python -m tests.perf.per_batch --train --pairs 100
	$(BIN)/python -m tests.perf.overhead

resolution: setup  ## measure the smallest difference that this machine resolves, with known pairs, in an hour
	$(BIN)/python -m tests.perf.resolution twins
	$(BIN)/python -m tests.perf.resolution slowed

clinic: setup  ## try the doctor on loaders with one known disease each, five times, in some hours; resumes; needs root and fuse3
	$(BIN)/python -m tests.perf.clinic

honest: setup  ## certify all contestants with 20 seeds in 8 ways, in one to two hours: no honest loader may be faulted
	$(BIN)/python -m tests.perf.honest

unpacking: setup  ## compare unpacking ImageNet's tar of tars with tar itself
	$(BIN)/python -m tests.perf.unpacking

s3-rate: setup  ## compare copying from S3 with s5cmd, and measure the memory that a million objects take
	$(BIN)/python -m tests.perf.s3_rate
	$(BIN)/python -m tests.perf.million_keys

# Two at a time; a file's tests stay together, for what they share. Numba's quick compiling suits FFCV's short lives here.
PYTEST = NUMBA_OPT=0 $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder -p no:benchmark

test: setup  ## run the tests, but for those that take long and rarely fail
	$(PYTEST) -m 'not slow'

test-slow: setup  ## run the tests that take long and rarely fail
	$(PYTEST) -m slow

# Figures and lists are filled in below the comments that name them, see docs/front_page.py.
COG := $(BIN)/cog --verbosity=0 -P -I docs -I . -p 'import clinic, figures, front_page, lists'
PAGES := README.md $(wildcard docs/*.md)
SITE := NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

lint: setup  ## check style, format, types, rooms and pages
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(COG) --check --diff --check-fail-msg='run: make docs' $(PAGES)
	$(SITE)

docs: setup  ## fill in the figures of README.md and docs/, and build the site into site/
	$(COG) -r $(PAGES)
	$(SITE)

format: setup  ## format the code and apply the linter's fixes
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

audit: tools  ## look for known vulnerabilities of all locked versions; needs the network
	$(BIN)/uv venv -q --clear .audit
	VIRTUAL_ENV=.audit $(BIN)/uv pip sync -q --require-hashes requirements/audit.lock
	@failed=0; for lock in requirements/*.lock; do echo "$$lock:"; \
		.audit/bin/pip-audit --strict --require-hashes --disable-pip -r "$$lock" || failed=1; done; exit $$failed

tools:
	$(SETUP) tools

lock: tools  ## resolve the newest versions and write requirements/*.lock
	$(COMPILE) --group tools --output-file requirements/tools.lock
	$(COMPILE) pyproject.toml --all-extras --group dev --constraint requirements/tools.lock \
		--no-emit-package ffcv --output-file requirements/all.lock
	$(COMPILE) pyproject.toml --constraint requirements/all.lock --output-file requirements/core.lock
	$(COMPILE) --group audit --output-file requirements/audit.lock

# One lock for every Python we support; ffcv itself is in requirements/ffcv.lock, kept by hand.
COMPILE = $(BIN)/uv pip compile --quiet --upgrade --universal --fork-strategy fewest --python-version 3.11 \
	--generate-hashes --no-emit-index-url --custom-compile-command 'make lock'

clean:  ## remove the environment and caches; results, reports and data stay
	rm -rf .venv .audit dist site setup.log .mypy_cache .ruff_cache .pytest_cache
