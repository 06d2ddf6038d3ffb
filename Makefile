# Two commands do everything on a fresh clone: `make demo` and `make test`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
DATA := .data
UNPACK := ../shared/tools/unpack_data.py

export TF_CPP_MIN_LOG_LEVEL ?= 3
ifneq ($(wildcard $(DATA) $(UNPACK)),)
export HWA_DATA_DIR ?= $(abspath $(DATA))
endif

.PHONY: demo test lint data clean

demo: $(INSTALLED)
	$(BIN)/python examples/quickstart.py

test: lint data
	KERAS_BACKEND=tensorflow $(BIN)/python -m pytest -q -n 2 --doctest-modules hwa_keras tests
	KERAS_BACKEND=jax $(BIN)/python -m pytest -q -n 2 -m "not slow" tests

lint: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

# The real data sets, where they are kept next to the repository; tests that need
# them are skipped by name elsewhere.
data: $(INSTALLED)
	if [ -f $(UNPACK) ]; then $(BIN)/python $(UNPACK) $(DATA); fi

# Installs again whenever setup.py changes. A `venv` that was cut short has no pip, and
# the pip that comes with Python 3.10 searches for many minutes for what fits together.
$(INSTALLED): setup.py
	test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade pip
	$(BIN)/python -m pip install -q -e ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) $(DATA) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
