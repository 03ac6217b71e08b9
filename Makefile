# make demo   watch a simulated blood smear being counted
# make check  lint, types, import layers and the fast tests: before each commit
# make test   lint, types, import layers and all tests
# make test-all   these and the slow ones, with coverage; fails where PyTorch or NVIDIA's bindings are missing
# make bindings   fetch NVIDIA's Python bindings, so that `make test` checks the calls to TensorRT against them
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test bindings install install-dev clean

demo: install
	@$(BIN)/leukostream demo

.PHONY: check lint types test-all
lint: install-dev types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

# The types of `tools` can be checked only where PyTorch is installed: without it all that it gives is of any type.
types: install-dev
	$(BIN)/mypy -p engines -p streamer $(shell $(BIN)/python -c 'import importlib.util as u, sys; sys.exit(u.find_spec("torch") is None)' 2> /dev/null && echo -p tools)

# Files of tests side by side, one process a core; `make test PARALLEL=` runs them one after the other.
PARALLEL ?= -n auto --dist loadfile

# Without the tests that train networks or start the program, and without those marked as lengthy.
FAST := tests/engines tests/streamer tests/tools/data tests/tools/metrics tests/tools/report tests/test_docs.py

check: lint
	$(BIN)/python -m pytest $(PARALLEL) -m "not lengthy and not slow and not gpu" $(FAST)

test: lint
	$(BIN)/python -m pytest $(PARALLEL) -m "not slow and not gpu"

# What has to be here, so that no test is skipped for want of it: all that CI can install.
REQUIRED := torch,sklearn,efficientnet,matplotlib,pycocotools,bindings

test-all: lint
	$(BIN)/python -m pytest $(PARALLEL) -m "not gpu" --require $(REQUIRED) --cov --cov-report=term

# Only the bindings, for Linux: no TensorRT library is fetched, and none is needed to read their interface.
BINDINGS := build/trt-bindings
bindings: $(BINDINGS)/10.12/tensorrt_bindings $(BINDINGS)/11.4/tensorrt_bindings
$(BINDINGS)/10.12/tensorrt_bindings: PACKAGE := tensorrt_cu12_bindings==10.12.0.36
$(BINDINGS)/11.4/tensorrt_bindings: PACKAGE := tensorrt_cu13_bindings==11.4.0.106
$(BINDINGS)/%/tensorrt_bindings: | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target $(@D) $(PACKAGE)
	@touch $@

install: $(VENV)/.installed
install-dev: $(VENV)/.installed-dev

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "leukostream: got Python %d.%d, expected 3.11 or newer; name one with: make PYTHON=python3.11 ..." % sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
