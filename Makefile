# make quickstart [TASK=segmentation or classification]   install, train a small BiFormer, evaluate
# make test                             install, then the whole test suite
# make bench [BENCH='--size 800x1344']   install, then time and memory beside the official style
# make test-ultralytics                 install Ultralytics elsewhere, then the tests that need it
# make gpu-compile                      compile the GPU kernels by three versions of Triton; no GPU
# make torture                          hours: kills, signals, and damaged, hostile and wrong files
# make lint                             ruff
# PYTHON=... names the Python to install with; else python3.11, 3.12 or 3.13 is looked for.
TASK ?= detection
BIN := .venv/bin
PIP = $(BIN)/python -m pip install --disable-pip-version-check -c requirements/constraints.txt
MMCV := --no-build-isolation -r requirements/3-mmcv.txt
# What torch 2.10 and 2.11 bring, what the pinned torch does, and the newest.
TRITONS := 3.6.0 $(shell sed -n 's/^triton==//p' requirements/7-triton.txt) 3.9.0

.PHONY: quickstart test chromium test-ultralytics bench lint setup gpu-compile torture
.PRECIOUS: .triton/%/installed
quickstart: setup
	$(BIN)/python tools/quickstart.py --task $(TASK)

test: setup chromium
	$(BIN)/python -m pytest

# For tests of the routing explorer, which are skipped without it. Root on Debian, as in a
# container, gets it; nobody else's system is changed.
chromium:
	@sh requirements/find_chromium.sh

test-ultralytics: .venv-ultralytics/installed
	.venv-ultralytics/bin/python -m pytest tests/integrations

bench: setup
	$(BIN)/python tools/benchmark.py $(BENCH)

# More than an hour of one core; `make -j2 gpu-compile` takes two. What was compiled before is kept.
gpu-compile: $(TRITONS:%=gpu-compile-%)

gpu-compile-%: .triton/%/installed
	env -u TRITON_INTERPRET PYTHONPATH=.triton/$*:$(CURDIR) TRITON_CACHE_DIR=$(CURDIR)/.triton/cache \
	    $(BIN)/python -W ignore tests/helpers/gpu_compile.py

.triton/%/installed: | setup
	$(PIP) --no-deps --upgrade --target .triton/$* triton==$*
	touch $@

# What was found: docs/reliability.md, docs/data_check.md and docs/config_check.md. `make test` runs
# a sample of each.
TORTURE := PYTHONPATH=tests/helpers $(BIN)/python -W ignore tests/helpers
torture: setup
	$(TORTURE)/damages.py --damages 1000
	$(TORTURE)/config_mutations.py
	$(TORTURE)/data_mutations.py --coco 10000 --images 2000
	MMBIFORMER_HOSTILE_FILES=1000 $(BIN)/python -m pytest -n 0 tests/checkpoints/test_hostile_files.py
	$(TORTURE)/signals.py --signals 100 --pairs 0.25 --workers 0.3 --steps 50
	$(TORTURE)/kills.py --kills 200 --inside 0.5 --pairs 0.25

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

setup: .venv/installed

# The order matters: mmcv compiles its ops against the torch that is there (about 8 minutes on two
# cores the first time; pip keeps the wheel). A wheel that pip once cached without ops is rebuilt.
.venv/installed: $(wildcard requirements/*.txt) setup.py
	python=$$(sh requirements/find_python.sh '$(PYTHON)') && "$$python" -m venv .venv
	$(PIP) -r requirements/1-build.txt
	$(PIP) -r requirements/2-torch.txt
	@echo 'Building mmcv with its ops: about 8 minutes on two cores, unless pip has the wheel.'
	MMCV_WITH_OPS=1 $(PIP) $(MMCV)
	$(BIN)/python -c 'import mmcv._ext' || MMCV_WITH_OPS=1 $(PIP) --no-cache-dir --force-reinstall --no-deps $(MMCV)
	$(PIP) -r requirements/4-mm.txt
	$(BIN)/python requirements/repair_torchvision.py
	$(PIP) --force-reinstall --no-deps -r requirements/5-headless.txt
	$(PIP) -r requirements/6-test.txt
	$(BIN)/python -c 'import torch, triton; assert torch.version.cuda' || $(PIP) -r requirements/7-triton.txt
	$(PIP) --no-build-isolation --no-deps -e .
	touch $@

# Ultralytics wants other packages than mm does, and is under AGPL-3.0: it stays out of .venv.
.venv-ultralytics/installed: BIN := .venv-ultralytics/bin
.venv-ultralytics/installed: $(wildcard requirements/*.txt) setup.py
	python=$$(sh requirements/find_python.sh '$(PYTHON)') && "$$python" -m venv .venv-ultralytics
	$(PIP) -r requirements/1-build.txt
	$(PIP) -r requirements/2-torch.txt
	$(PIP) -r requirements/ultralytics.txt
	$(PIP) --force-reinstall --no-deps -r requirements/5-headless.txt
	$(PIP) -r requirements/6-test.txt
	$(PIP) --no-build-isolation --no-deps -e .
	touch $@
