# make demo: set everything up and run the main job.  make test: set everything up, lint, types and tests.
PYTHON ?= python3
VENV ?= .venv
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check

.PHONY: help install demo test test-full test-all mutants clean

help:
	@echo "make demo     install, then benchmark a tiny FLUX on two processes (no GPU needed)"
	@echo "make test     install, then lint, types and tests: about 12 minutes on two cores"
	@echo "make test-all the same, then what is marked full: every case of every table, Slurm, two hosts, disks"
	@echo "make test-full only what test-all adds to test"
	@echo "make mutants  which known one-line bugs the tests notice: about half an hour (MUTANTS='--only measure --jobs 2')"
	@echo "make install  install into $(VENV)"
	@echo "make clean    remove $(VENV) and the demo's results"

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed; say make PYTHON=python3.12, for example" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

# --no-compile: Python compiles what is imported when it is; compiling everything takes more time than all the rest (60 of 105 s of processor time).
INSTALL := $(PIP) install --quiet --no-compile --constraint constraints.txt

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(INSTALL) --editable .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(INSTALL) --editable ".[dev]"
	@touch $(VENV)/.installed $@

$(VENV)/.installed-full: $(VENV)/.installed-dev
	$(INSTALL) --editable ".[dev,full]"
	@touch $@

install: $(VENV)/.installed

# OMP_NUM_THREADS: torchrun would set 1 by itself, but with a warning.
demo: install
	OMP_NUM_THREADS=1 $(VENV)/bin/torchrun --nproc_per_node=2 -m mlenergy.diffusion.benchmark \
	  --ulysses_degree 2 --ring_degree 1 --warmup_iters 1 --benchmark_iters 4 --overwrite_results \
	  workload:text-to-image --workload.model_id tiny/flux --workload.base_dir run/demo --workload.batch_size 2

test: $(VENV)/.installed-dev
	VENV=$(VENV) scripts/check

test-full: $(VENV)/.installed-full
	VENV=$(VENV) scripts/check --full

test-all: test test-full

mutants: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(VENV)/bin/python scripts/mutants.py $(MUTANTS)

clean:
	rm -rf $(VENV) run/demo
