# `make` alone lists what there is. Every target makes the environment first when it is missing or older than the lock.
PROFILE ?= quick
CORES ?= $(shell nproc)
NAME ?= $(PROFILE)
SET ?= {}
PORT ?= 8866
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready

KNOWN := PROFILE CORES NAME SET PORT PYTHON VENV PARTITION ACCOUNT GPUS MEMORY MINUTES RUN_CORES RUNS DIR
UNKNOWN := $(filter-out $(KNOWN),$(foreach one,$(MAKEOVERRIDES),$(firstword $(subst =, ,$(one)))))
ifneq ($(UNKNOWN),)
$(error make knows no $(UNKNOWN); it knows $(KNOWN))
endif

.DEFAULT_GOAL := help
.PHONY: help reproduce slurm slurm-test agree reference tolerance plan test kill-test fault-test bench gpu stand-ins lessons student-copy graded-copy class lab lint docs clean lock

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=...")'
	@$(PYTHON) -c 'import shutil, sys; free = shutil.disk_usage(".").free / 1e9; sys.exit(free < 8 and \
		f"The environment takes some 7 GB, with CUDA libraries, and {free:.1f} GB are free here: make room first.")'
	@echo "Installing into $(VENV): some 7 GB with CUDA's libraries, which takes minutes the first time."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	$(BIN)/python -m pip check
	@echo "Training the small backbone of the lessons and of the page (half a minute)."
	$(BIN)/python -c 'from lmeraser_kit.lab.references import split_and_backbone; split_and_backbone()'
	@touch $@

reproduce: $(READY)  ## run a profile (PROFILE=quick) into results/PROFILE, and compare it with the reference; SET='{seed: [0]}' NAME=mine
	@SET='$(SET)' $(BIN)/python -m lmeraser_kit.experiments.reproduce '$(PROFILE)' --name '$(NAME)' --cores '$(CORES)'

slurm: $(READY)  ## the same on a cluster, given on its login node: PROFILE=paper PARTITION= ACCOUNT= GPUS=1
	@SET='$(SET)' $(BIN)/python -m lmeraser_kit.experiments.reproduce '$(PROFILE)' --name '$(NAME)' --slurm --cores '$(or $(RUN_CORES),1)' \
		--partition '$(PARTITION)' --account '$(ACCOUNT)' --gpus '$(GPUS)' --memory '$(MEMORY)' --minutes '$(MINUTES)'

agree: $(READY)  ## how a run (PROFILE=quick NAME=quick) agrees with the reference of its profile
	@$(BIN)/python -m lmeraser_kit.experiments.agreement '$(PROFILE)' --name '$(NAME)'

reference: $(READY)  ## for maintainers: a run of this commit becomes the reference of its profile
	@$(BIN)/python -m lmeraser_kit.experiments.reference '$(PROFILE)' --name '$(NAME)'

tolerance: $(READY)  ## for maintainers: what other kernels change, from RUNS="quick quick-nehalem quick-default" (see results/README.md)
	@$(BIN)/python -m lmeraser_kit.experiments.reference $(PROFILE) --tolerance $(RUNS)

plan: $(READY)  ## what a profile would run here, and about how long it would take
	@$(BIN)/python -m lmeraser_kit.experiments.estimate $(PROFILE) --cores $(CORES) --set '$(SET)'

test: $(READY)  ## run the tests, CORES files at a time, at most 8
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $$(($(CORES) < 8 ? $(CORES) : 8)) --dist loadfile --no-loadscope-reorder

slurm-test: $(READY)  ## make slurm on a SLURM of this machine, against make reproduce; as root (docs/slurm.md)
	$(BIN)/python tests/one_machine_slurm.py

kill-test: $(READY)  ## kill a store at 240 random points (SIGKILL) and look what is there afterwards
	OMP_NUM_THREADS=1 $(BIN)/python tests/kill.py --points 240

fault-test: $(READY)  ## let the disk of a store fail at 1,805 points: full, torn, without power, ...; needs a C compiler
	OMP_NUM_THREADS=1 $(BIN)/python tests/faults.py --points 40

bench: $(READY)  ## time a large store, planning a million samples in 2,000 clusters, and what keeping memory is worth
	$(BIN)/python benchmarks/store.py
	$(BIN)/python benchmarks/scale.py
	$(BIN)/python benchmarks/memory.py

gpu: $(READY)  ## what a GPU proves: exactness, equal sums, rates at 224 pixels, all of CIFAR-10 (12 minutes)
	$(BIN)/python benchmarks/gpu.py --part 1
	$(BIN)/python benchmarks/gpu.py --part 2
	$(BIN)/python benchmarks/gpu.py --part 3

# Small enough to run anywhere: four datasets in their published formats, with noise in them, and a backbone to match.
STAND_IN_SET := {backbone: [small-vit], precision: [float32], backbone_epochs: 1, epochs: 1, limits: [[0, 0, 0]], seed: [0], \
	n_clusters: 4, sweep: [[2, 4]], n_requests: 2, n_moves: 3, slices: [[1, 2]], n_forget: 8, n_single: 1, \
	strengths: [[1.0]], n_again: 1, n_shadows: 6, n_canaries: 4, batch_size: 8, rounds: 1, steps: 1, sizes: [[8]], \
	many: [[100]], several: [[4]]}

stand-ins: $(READY)  ## run the paper's profile on tiny stand-ins for its datasets, through every notebook
	$(BIN)/python tests/stand_ins.py $(VENV)/stand-ins
	LMERASER_DATA=$(CURDIR)/$(VENV)/stand-ins LMERASER_STAND_INS=1 \
		$(MAKE) reproduce PROFILE=paper NAME=stand-ins SET='$(STAND_IN_SET)'

lessons: $(READY)  ## make the lessons from their solutions
	$(BIN)/python -m lmeraser_kit.lab.handout

student-copy: $(READY)  ## the lessons without solutions, and the kit, to give away: DIR=~/course
	@test -n "$(DIR)" || { echo "Say where: make student-copy DIR=~/course" >&2; exit 2; }
	$(BIN)/python -m lmeraser_kit.lab.handout $(DIR)

graded-copy: $(READY)  ## the lessons as nbgrader's sources, solutions and all: DIR=~/grading
	@test -n "$(DIR)" || { echo "Say where: make graded-copy DIR=~/grading" >&2; exit 2; }
	$(BIN)/python -m lmeraser_kit.lab.handout --graded $(DIR)

class: $(READY)  ## open the page "press Forget" in a browser (PORT=8866)
	@$(BIN)/python -m lmeraser_kit.lab --port $(PORT)

lab: $(READY)  ## open JupyterLab on the notebooks
	$(BIN)/jupyter lab notebooks

lint: $(READY)  ## check format, style, imports and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-logo
	$(BIN)/mypy

docs: $(READY)  ## build the documents into docs/_build/html, lessons executed; warnings are errors
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

clean:  ## remove trained backbones, caches and lab runs; the environment and results of other runs stay
	rm -rf data/backbones data/features data/shadows data/decoded results/lab results/tiny results/stand-ins docs/_build docs/notebooks .snakemake .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

lock: $(READY)  ## write requirements.lock anew from what is installed in .venv
	$(BIN)/python -m pip freeze --all --exclude pip --exclude-editable | sed -E \
		's/^((nvidia|triton|cuda)[^ ]*)$$/\1 ; platform_system == "Linux" and platform_machine == "x86_64"/' > requirements.lock
