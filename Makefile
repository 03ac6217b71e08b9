# make demo   watch a simulated blood smear being counted
# make test   lint, types, import layers and all tests
# make bindings   fetch NVIDIA's Python bindings, so that `make test` checks the calls to TensorRT against them
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test bindings install install-dev clean

demo: install
	@$(BIN)/leukostream demo

test: install-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -m "not slow and not gpu"

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
