# Everything on a fresh machine: `make demo` and `make test`. Each makes .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO_WORKDIR ?= runs/demo
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: setup demo test test-fast test-slow faults fuzz lint audit lock docs bench clean

# Every extra that development needs; `make demo` installs less.
setup: $(VENV)/.test

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "stlm_jax needs Python 3.11 or newer; name one: make PYTHON=python3.12 …")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) -e '.[demo]'
	touch $@

$(VENV)/.test: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) -e '.[test]'
	touch $@ $(VENV)/.demo

demo: $(VENV)/.demo
	$(BIN)/python -m stlm_jax.main --config=configs/demo.py --workdir=$(DEMO_WORKDIR)

test: $(VENV)/.test
	$(BIN)/python -m pytest --numprocesses=2 --dist=loadfile --no-loadscope-reorder

# Most of what a change breaks, in about two minutes.
test-fast: $(VENV)/.test
	$(BIN)/python -m pytest --fast --numprocesses=2 --dist=loadfile --no-loadscope-reorder

test-slow: $(VENV)/.test
	$(BIN)/python -m pytest -m slow

# The targets of tests/fuzz with many more inputs, in a quarter of an hour; others each time.
fuzz: $(VENV)/.test
	HYPOTHESIS_PROFILE=long $(BIN)/python -m pytest tests/fuzz

# A hundred processes killed at random moments; prints the table of docs/reliability.md.
faults: $(VENV)/.test
	rm -rf build/faults
	$(BIN)/python tests/faults/random_kills.py build/faults

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	@$(MAKE) --no-print-directory audit

# Known vulnerabilities of what is locked, where PyPI's data can be reached.
audit: $(VENV)/.test
	@if curl --silent --fail --max-time 5 --output /dev/null https://pypi.org/pypi/pip/25.0/json; then \
	  $(INSTALL) pip-audit && $(BIN)/pip-audit --disable-pip --requirement requirements.lock; \
	else echo "audit: PyPI's data cannot be reached, left out"; fi

# What `constraints.txt` pins, with the hashes of all its files.
lock: $(VENV)/.test
	$(INSTALL) uv
	$(BIN)/uv pip compile pyproject.toml --extra test --extra docs --generate-hashes -c constraints.txt \
	  --python-version 3.11.5 --universal --no-header --no-annotate -o requirements.lock

# The documentation as a site; a broken link is an error.
docs: $(VENV)/.test
	$(INSTALL) -e '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

bench: $(VENV)/.test
	$(BIN)/python -m benchmarks.train_step
	$(BIN)/python -m benchmarks.data_pipeline
	$(BIN)/python -m benchmarks.inference
	$(BIN)/python -m benchmarks.metrics
	$(BIN)/python -m benchmarks.checkpoint
	$(BIN)/python -m benchmarks.first_result
	$(BIN)/python -m benchmarks.code_size

clean:
	rm -rf $(VENV) runs build *.egg-info
