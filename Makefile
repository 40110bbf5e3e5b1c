# Every target makes the environment it needs. PYTHON: any Python from 3.11 on.
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo $$python && break; done)
BIN = .venv/bin
# Most tests wait for processes to start and to end, which leaves cores idle; each takes a GB.
SIDE_BY_SIDE = -n 3 --dist worksteal
PIP_OPTIONS = --disable-pip-version-check --quiet

.PHONY: venv demo lint format test test-oldest bench clean

venv: .venv/.installed
.venv/.installed: pyproject.toml constraints/newest.txt
.venv-oldest/.installed: pyproject.toml constraints/oldest.txt

# The largest wheels are torch's; the first run takes minutes, one without changes nothing.
.venv/.installed .venv-oldest/.installed:
	@test -n "$(PYTHON)" || { echo "no Python from 3.11 on found: set PYTHON" >&2; exit 1; }
	test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install $(PIP_OPTIONS) -c $(lastword $^) -e '.[dev]'
	@touch $@

demo: venv
	$(BIN)/frescod demo

lint: venv
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: venv
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

test: lint
	$(BIN)/python -m pytest $(SIDE_BY_SIDE)

test-oldest: .venv-oldest/.installed
	.venv-oldest/bin/python -m pytest $(SIDE_BY_SIDE)

# benchmarks/gpu_scaling.py needs GPUs and says how it wants to be called.
bench: venv
	@for name in memory pipeline_sim propagation soak; do echo "== $$name"; \
	$(BIN)/python -m benchmarks.$$name || exit 1; done

# The environments stay: remove .venv and .venv-oldest by hand.
clean:
	rm -rf build dist demo *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find daemon fresco_core io_pipeline tests benchmarks -name __pycache__ -prune -exec rm -rf {} +
