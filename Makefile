# Every target one line of why: `make help`. No root is needed; everything installs into .venv.
RECIPE  ?= digits
TARGET  ?= unicorn
BOARD   ?= $(if $(filter host,$(TARGET)),host,netduinoplus2)
BUILD   ?= build
DATA    ?=
IMAGES  ?=
SET     ?=
MODELS  ?=
TOOLCHAIN ?= auto
PYTHON  ?= $(shell command -v python3.11 || command -v python3)

# Waiting OpenMP threads that spin slow a busy machine down several times.
export OMP_WAIT_POLICY ?= PASSIVE

PY      := .venv/bin/python
OPTIONS := $(if $(DATA),"data.folder=$(DATA)") $(SET) --build "$(BUILD)"
EXPORT  := --board "$(BOARD)" --toolchain $(TOOLCHAIN)
RUN     := --board "$(BOARD)" --target "$(TARGET)" $(if $(IMAGES),--images $(IMAGES))
# One process for each core, four at most; a test file stays in one of them, for what its tests share.
WORKERS := -n auto --maxprocesses 4 --dist loadfile
SETUP   := .venv/.runtime
DEV     := .venv/.dev

.DEFAULT_GOAL := help
.PHONY: help setup check pipeline train compress export firmware run layers exact bench test test-long test-tensorflow lint clean

help: ## list the targets and the variables
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "  variables: RECIPE=$(RECIPE) BOARD=$(BOARD) TARGET=$(TARGET) (host, unicorn, qemu, serial:PORT[:BAUD])"
	@echo "             DATA=folder of the data set, IMAGES=how many, BUILD=$(BUILD), TOOLCHAIN=auto|gcc|zig,"
	@echo "             SET=\"section.key=value ...\" changes the recipe for this run"

$(SETUP): requirements.txt constraints.txt
	@test -n "$(PYTHON)" || { echo "error: no python3 found; install Python 3.11 and run again" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || \
	    { echo "error: $(PYTHON) is not Python 3.11; name one with PYTHON=/path/to/python3.11" >&2; exit 2; }
	@echo "setup: installing pinned packages into .venv (about 2 GB, some minutes)"
	@test -x $(PY) || $(PYTHON) -m venv .venv
	@$(PY) -m pip install -q --disable-pip-version-check -c constraints.txt -r requirements.txt
	@touch $@

$(DEV): $(SETUP) requirements-dev.txt
	@$(PY) -m pip install -q --disable-pip-version-check -c constraints.txt -r requirements-dev.txt
	@touch $@

.venv/.tensorflow: $(DEV) requirements-tensorflow.txt
	@echo "setup: installing the optional extra tensorflow (about 2 GB)"
	@$(PY) -m pip install -q --disable-pip-version-check -c constraints.txt -r requirements-tensorflow.txt
	@touch $@

setup: $(SETUP) ## install what the programs need into .venv

check: $(SETUP) ## look at recipe, steps, board, target and compiler before anything runs
	@$(PY) -m compress $(RECIPE) $(OPTIONS) --check
	@$(PY) -m firmware_export $(RECIPE) $(OPTIONS) $(EXPORT) --check
	@$(PY) -m host_tools check $(RECIPE) $(OPTIONS) $(RUN)

pipeline: check train compress firmware run ## the whole way: images in, checked answers of the (virtual) board out

train: $(SETUP) ## regularised training of the float model
	@$(PY) -m train $(RECIPE) $(OPTIONS)

compress: train ## prune, distil, fold, quantize; float and int8 ONNX
	@$(PY) -m compress $(RECIPE) $(OPTIONS)

export: compress ## int8 ONNX to C, its TFLite twin and known answers
	@$(PY) -m firmware_export $(RECIPE) $(OPTIONS) --toolchain $(TOOLCHAIN)

firmware: compress ## export, then build the firmware image for BOARD
	@$(PY) -m firmware_export $(RECIPE) $(OPTIONS) $(EXPORT)

run: firmware ## stream the test images to TARGET, check every answer, write the report
	@$(PY) -m host_tools $(RECIPE) $(OPTIONS) $(RUN)

layers: firmware ## name the first layer in which the board differs from the simulator
	@$(PY) -m host_tools layers $(RECIPE) $(OPTIONS) $(RUN)

exact: firmware ## compare simulator, C, emulators and outside interpreters byte for byte
	@$(PY) -m host_tools exact $(RECIPE) $(OPTIONS) --board "$(BOARD)" $(if $(IMAGES),--images $(IMAGES))

bench: $(SETUP) ## what an inference costs on every core: instructions, flash, RAM, stack (MODELS=files, or RECIPE)
	@$(PY) -m host_tools bench $(if $(MODELS),$(MODELS),$(RECIPE)) $(OPTIONS) --toolchain $(TOOLCHAIN)

test: $(DEV) ## all fast tests (10 minutes at most)
	@$(PY) -m pytest $(WORKERS)

test-long: $(DEV) ## the long tests too: fuzzing, whole data sets (hours)
	@$(PY) -m pytest $(WORKERS) -m ""

test-tensorflow: .venv/.tensorflow ## cross-checks of the TFLite twin with TensorFlow (installs the extra, 2 GB)
	@$(PY) -m pytest -m tensorflow

lint: $(DEV) ## ruff and mypy
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy

clean: ## remove everything that was built (keeps .venv)
	@for folder in "$(BUILD)"/*/; do \
	    if [ -e "$$folder/.lock" ] || [ -e "$$folder/bench.json" ]; then rm -rf "$$folder"; fi; done
	@rmdir "$(BUILD)" 2>/dev/null || true
