# Three commands do everything on a fresh clone: `make demo`, `make test`, `make docs`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
LARQ_VENV := .venv-larq
LARQ_INSTALLED := $(LARQ_VENV)/.installed
# The nodal solver that tests compare with. Apart, as it brings a package "tests" of its
# own, and without what it plots with, which has no wheels.
SOLVER := badcrossbar==1.1.0 pathvalidate sigfig
DATA := .data
UNPACK := ../shared/tools/unpack_data.py

# Larq's environment is made and tested beside the checks of the code.
MAKEFLAGS += --jobs=2

export TF_CPP_MIN_LOG_LEVEL ?= 3
ifneq ($(wildcard $(DATA) $(UNPACK)),)
export HWA_DATA_DIR ?= $(abspath $(DATA))
endif

# Larq pins NumPy 1, which has no wheels for Python 3.13, so it gets a venv of its own.
ifeq ($(shell $(PYTHON) -c "import sys; print(sys.version_info < (3, 13))"),True)
LARQ_REQUIRES := $(LARQ_INSTALLED)
endif

# Where code differs between backends, or computes in another order on each. Files that
# do not are marked `slow` there.
ON_JAX := $(addprefix tests/,analysis circuits conversion core crossbar deployment \
	devices layers noise quantizers search/supernets spiking training)

.PHONY: demo test docs larq lint data clean

demo: $(INSTALLED)
	$(BIN)/python examples/quickstart.py

test: lint data larq
	KERAS_BACKEND=tensorflow $(BIN)/python -m pytest -q -n 2 --dist worksteal \
		--durations=25 --ignore=tests/larq --doctest-modules hwa_keras tests
	KERAS_BACKEND=jax $(BIN)/python -m pytest -q -n 2 --dist worksteal \
		--durations=25 -m "not slow" $(ON_JAX)

# The site, with every tutorial executed: build/site/index.html.
docs: $(INSTALLED)
	DOCS_EXECUTE=true $(BIN)/python -m mkdocs build --strict

# Parity with Larq itself. The switch gives tf.keras back to Keras 2, for which Larq is
# written; `import keras` stays Keras 3.
larq: $(LARQ_REQUIRES)
ifdef LARQ_REQUIRES
	TF_USE_LEGACY_KERAS=1 KERAS_BACKEND=tensorflow \
		$(LARQ_VENV)/bin/python -m pytest -q -n 2 tests/larq
else
	@echo "Skipped: the Larq parity tests (tests/larq), which need NumPy 1" \
		"and so Python 3.12 at most"
endif

lint: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/mypy --strict tests/typing/consumer.py

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
	$(BIN)/python -m pip install -q --no-deps --target $(VENV)/badcrossbar $(SOLVER)
	touch $@

# After the other, as both write the package's metadata beside its source.
$(LARQ_INSTALLED): setup.py Makefile | $(INSTALLED)
	test -x $(LARQ_VENV)/bin/pip || $(PYTHON) -m venv $(LARQ_VENV)
	$(LARQ_VENV)/bin/python -m pip install -q --upgrade pip
	$(LARQ_VENV)/bin/python -m pip install -q -e ".[larq]" "pytest>=8.2" pytest-xdist
	touch $@

clean:
	rm -rf $(VENV) $(LARQ_VENV) $(DATA) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
