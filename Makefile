# make verify · make test · make help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

ADAPTERS ?= refimpl torch tensorflow
# pytest-xdist workers; 0 runs the tests in one process
JOBS ?= auto

comma := ,
empty :=
space := $(empty) $(empty)

# Each framework has an extra of its own name, Optax that of JAX; the other adapters need none.
frameworks := torch tensorflow jax
adapters := $(subst $(comma),$(space),$(ADAPTERS))
verify_extras := $(filter $(frameworks),$(sort $(adapters:optax=jax)))
test_extras := test lint $(frameworks)

# One empty file for each extra that is installed, so that a second `make` installs nothing.
stamps = $(patsubst %,$(VENV)/.has-%,core $(1))

# TensorFlow.js, where there is Node; without it its tests say that they are skipped.
tfjs := adapters/tfjs
node_packages := $(if $(shell command -v npm),$(tfjs)/node_modules/.package-lock.json)

all_tests := $(or $(SLOW),$(filter true,$(CI)))

.PHONY: help verify verify-all records test test-long mutants fixtures bench clean
.NOTPARALLEL:

help: ## say what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo 'ADAPTERS="refimpl torch"  check and install only these; default: $(ADAPTERS)'
	@echo 'OPERATIONS="clip.* optim.*"  verify-all: only these operations'
	@echo 'SLOW=1                    run the slow tests too, as CI does'
	@echo 'JOBS=0                    run the tests in one process'
	@echo 'PYTHON=python3.12         the Python that makes $(VENV) (after make clean)'

verify: extras := $(verify_extras)
verify: $(call stamps,$(verify_extras)) ## check implementations against the fixtures
	$(BIN)/secateurs verify $(adapters)

# Every library, each where it can live: in $(VENV) or in an environment that `secateurs env` makes and names.
all_runs := $(VENV)/verify-all.jsonl
verify-all: extras := $(frameworks) arrays
verify-all: $(call stamps,$(frameworks) arrays) $(node_packages) ## make all environments, check everything (long, the first time)
	-$(BIN)/secateurs env --all
	$(BIN)/secateurs verify $(foreach pattern,$(OPERATIONS),--operation '$(pattern)') --jsonl $(all_runs)

records: $(call stamps,$(frameworks)) ## keep what verify-all saw: conformance/data/runs, FINDINGS.md
	$(BIN)/python -m conformance.recorded --from $(all_runs)
	$(BIN)/python -m conformance.findings

test: extras := $(test_extras)
test: $(call stamps,$(test_extras)) $(node_packages) ## lint, type-check and test this repository
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n $(JOBS) $(if $(all_tests),-m "not long")

test-long: extras := $(test_extras)
test-long: $(call stamps,$(test_extras)) ## run the tests that take minutes: whole recipes, fuzzing, pages made anew
	$(BIN)/python -m pytest -n $(JOBS) -m long

# Some processor hours; what was asked before and still stands is not asked again.
mutants: extras := test mutation
mutants: $(call stamps,test mutation) ## change refimpl a line at a time, see that the suite notices; writes docs/mutation.md
	$(BIN)/python -m mutation --jobs $(if $(filter-out auto,$(JOBS)),$(JOBS),2)

fixtures: $(call stamps) ## compute conformance/fixtures/ again
	$(BIN)/python -m conformance.build

# The checkout's own benchmarks/, with one thread count for both libraries: make bench THREADS=1
bench: extras := torch
bench: $(call stamps,torch) ## time refimpl beside PyTorch; writes benchmarks/RESULTS.md
	$(BIN)/python -m benchmarks $(if $(THREADS),--threads $(THREADS))

# What it compares needs CuPy and a CUDA build of PyTorch, which no extra installs: name a Python that has them.
CUDA_PYTHON ?= $(BIN)/python
bench-cuda: ## time refimpl on CuPy beside PyTorch CUDA: make bench-cuda CUDA_PYTHON=python
	@$(CUDA_PYTHON) -m benchmarks.cuda

clean: ## remove the environment and what tools left behind
	rm -rf $(VENV) $(tfjs)/node_modules build dist *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(tfjs)/node_modules/.package-lock.json: $(tfjs)/package.json $(tfjs)/package-lock.json
	npm ci --prefix $(tfjs) --no-audit --no-fund --loglevel error
	@touch $@

# The first missing stamp installs all that the goal asked for and touches every stamp of it.
$(call stamps,$(test_extras) arrays mutation): pyproject.toml constraints.txt $(VENV)/pyvenv.cfg
	@echo 'installing secateurs$(if $(extras), with $(strip $(extras))) into $(VENV)'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
	    -e '.$(if $(extras),[$(subst $(space),$(comma),$(strip $(extras)))])'
	@touch $(call stamps,$(extras))

$(VENV)/pyvenv.cfg:
	@command -v '$(PYTHON)' >/dev/null || \
	    { echo "no '$(PYTHON)' here; name a Python 3.11 or newer: make PYTHON=..." >&2; exit 1; }
	@'$(PYTHON)' -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "'$(PYTHON)' is older than 3.11; name a newer one: make PYTHON=..." >&2; exit 1; }
	@'$(PYTHON)' -m venv $(VENV) || { rm -rf $(VENV); exit 1; }
