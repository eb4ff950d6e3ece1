# make quickstart   a first result: installs what is locked, trains on digits, prints the outcome
# make install      .venv with what is locked, and nothing else
# make test         everything that must hold: make check, then the suite (Slurm included, where root)
# make drill        killed 100 times, clusters of two releases, fuzzers, a bundle's whole way; two hours
# make check        format, lint, types, shell scripts
# make templates    write slurm/*.sbatch anew, from the renderer of job.sbatch
# make lock         choose new versions of the dependencies

# make PYTHON=/usr/bin/python3 ...: another than the first in PATH. A distribution's is compiled with
# profiles, and starts a fifth faster than one that pyenv built as it does by default.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes
# Where it is set, as in many containers, each of the hundreds of programs that the suite starts
# compiles for itself what it imports.
unexport PYTHONDONTWRITEBYTECODE
SHELL_SCRIPTS := slurm/devcluster.sh slurm/devcluster/inside.sh slurm/finetune.sbatch \
  slurm/torchrun.sbatch slurm/install.sh .ci/run

.PHONY: install quickstart test drill check templates lock clean

install: $(VENV)/installed

quickstart: $(VENV)/installed
	$(BIN)/python launch.py --config quickstart.yaml

# More processes than the two cores of the smallest machine, for tests on a cluster mostly wait; so
# one thread each, for threads without a core of their own wait for each other actively. Each process
# takes the next test of the order in tests/conftest.py.
test: check
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 4 --dist load --maxschedchunk 1 --durations 15

drill: $(VENV)/test-installed
	$(BIN)/python -m tests.drills.crash_points --moments 100
	$(BIN)/python -m pytest tests/drills/cluster_drills.py
	TEST_SLURM_RELEASE=trixie $(BIN)/python -m pytest tests/drills/cluster_drills.py
	$(BIN)/python -m tests.drills.hundred_starts
	$(BIN)/python -m tests.drills.fuzz_archives --seconds 300
	$(BIN)/python -m tests.drills.fuzz_checkpoints --seconds 300
	$(BIN)/python -m pytest -s tests/drills/offline_round_trip.py

check: $(VENV)/test-installed
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/shellcheck --external-sources --check-sourced $(SHELL_SCRIPTS)

templates: $(VENV)/installed
	$(BIN)/python -m jobs.templates

$(VENV)/installed: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or later is needed: make PYTHON=/path/to/python3.11 ..." >&2; exit 2; }
	@echo "making $(VENV) (torch and its CUDA libraries take about 5.5 GB and a few minutes)" >&2
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) -r requirements.lock
	@touch $@

$(VENV)/test-installed: requirements-test.lock $(VENV)/installed
	$(INSTALL) -r requirements-test.lock
	@touch $@

# Exact versions with hashes for every system and Python that pyproject.toml admits; no index is
# named, so the files work with any mirror and with a folder of wheels.
lock: $(VENV)/installed
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile pyproject.toml --universal --generate-hashes --no-header --quiet --upgrade \
	  --extra digits -o requirements.lock
	$(BIN)/uv pip compile pyproject.toml --universal --generate-hashes --no-header --quiet --upgrade \
	  --extra digits --extra test -c requirements.lock -o requirements-test.lock

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
