# make demo: from nothing to two talking videos.  make install | test | check
PYTHON ?= python3.11
VENV ?= .venv
TORCH ?= torch==2.13.0
# Package index with CPU builds of torch; empty: a local wheel where pip is set up to find one, else PyPI's build.
TORCH_INDEX ?=

BIN := $(VENV)/bin
UV := $(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt
MANIFEST := pyproject.toml constraints.txt

.DEFAULT_GOAL := help
.PHONY: help install demo test test-faults check format fuzz clean

help:
	@echo "make install  a virtual environment in $(VENV) with everything that GenSync needs (CPU)"
	@echo "make demo     the whole chain on two sample speakers, in ./demo"
	@echo "make test     the test suite          make check  style, types, architecture, spelling"
	@echo "make test-faults  kills, deadlines, lost machines, damaged files: nothing is lost; a table (20 minutes at most)"
	@echo "make fuzz     thousands of damaged videos and recordings: a quarter of an hour (FUZZ_ARGS='--seed 1000')"

install: $(VENV)/.installed

demo: install
	$(BIN)/gensync demo

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

test-faults: $(VENV)/.installed-dev
	$(BIN)/python -m pytest --fault-table --fault-minutes 20 -n 3 --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

check: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports --no-logo
	$(BIN)/codespell .

fuzz: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/fuzz_media.py --count 3000 --seconds 900 $(FUZZ_ARGS)

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) demo .pytest_cache .ruff_cache .import_linter_cache

$(VENV)/.torch:
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@if $(BIN)/python -c "import torch" 2>/dev/null; then :; \
	elif [ -n "$(TORCH_INDEX)" ]; then \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --index-url "$(TORCH_INDEX)" "$(TORCH)"; \
	elif $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-index --no-deps "$(TORCH)" 2>/dev/null; then \
		echo "torch: from a local wheel"; \
	else \
		echo "torch: no local wheel and TORCH_INDEX is empty, so the build of the default index is taken."; \
		echo "       On Linux it carries CUDA (gigabytes). For a CPU build stop here and name an index that has one:"; \
		echo "       make install TORCH_INDEX=<package index with CPU builds of torch>"; \
		$(BIN)/uv pip install --quiet --python $(BIN)/python "$(TORCH)"; \
	fi
	@touch $@

$(VENV)/.installed: $(VENV)/.torch $(MANIFEST)
	$(UV) -e .
	$(BIN)/python -m gensync_core compile
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.torch $(MANIFEST)
	$(UV) -e '.[dev]'
	$(BIN)/python -m gensync_core compile
	@touch $@ $(VENV)/.installed
