# `make` alone lists what there is. Every target makes the environment first when it is missing or older than the lock.
PROFILE ?= quick
CORES ?= $(shell nproc)
NAME ?= $(PROFILE)
SET ?= {}
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready

.DEFAULT_GOAL := help
.PHONY: help reproduce plan test kill-test bench lab lint clean lock

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(READY): requirements.lock pyproject.toml
	@echo "Installing into $(VENV): some 6 GB with CUDA's libraries, which takes minutes the first time."
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	$(BIN)/python -m pip check
	@touch $@

# One call at a time (flock); the lock is the kernel's, so a call that was killed leaves none behind.
reproduce: $(READY)  ## run a profile (PROFILE=quick) into tables, figures and results/PROFILE/report.html; SET='{seed: [0]}' NAME=mine
	@SET='$(SET)' flock --nonblock --close $(VENV)/reproduce.lock \
		$(BIN)/snakemake --snakefile workflow/Snakefile --config profile=$(PROFILE) name=$(NAME) --cores $(CORES) \
		--keep-going --rerun-incomplete --nolock --quiet rules host reason \
		|| { echo "Not finished: see above. The next call takes up from here (one call at a time)."; exit 1; }
	@echo "The report: results/$(NAME)/report.html"

plan: $(READY)  ## what a profile would run here, and about how long it would take
	@$(BIN)/python -m lmeraser_kit.estimate $(PROFILE) --cores $(CORES) --set '$(SET)'

test: $(READY)  ## run the tests
	$(BIN)/python -m pytest

kill-test: $(READY)  ## kill a store at 240 random points (SIGKILL) and look what is there afterwards
	OMP_NUM_THREADS=1 $(BIN)/python tests/kill.py --points 240

bench: $(READY)  ## time a store of 50,000 samples in 300 clusters
	$(BIN)/python benchmarks/store.py

lab: $(READY)  ## open JupyterLab on the notebooks
	$(BIN)/jupyter lab notebooks

lint: $(READY)  ## check format and style
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

clean:  ## remove runs, trained backbones and caches; the environment and committed results stay
	rm -rf data/backbones results/lab results/tiny .snakemake .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

lock: $(READY)  ## write requirements.lock anew from what is installed in .venv
	$(BIN)/python -m pip freeze --exclude-editable | sed -E \
		's/^((nvidia|triton|cuda)[^ ]*)$$/\1 ; platform_system == "Linux" and platform_machine == "x86_64"/' > requirements.lock
