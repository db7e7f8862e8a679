# make train: sets up .venv and trains CartPole-v1.  make test: sets up .venv and runs the tests.
# uv is used where it is installed, else venv and pip.  PYTHON chooses the interpreter (3.11 to 3.13).

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin

.PHONY: train test lint audit clean

train: .venv/.runtime
	$(BIN)/jaxrl-cb train CartPole-v1

test: .venv/.dev
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder
	$(BIN)/python -m pytest -n 2 --nbmake notebooks

lint: .venv/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/basedpyright --pythonpath $(BIN)/python

# Known vulnerabilities of what is installed; asks PyPI, so it is no test; what PyPI cannot tell of fails.
audit: .venv/.runtime
	$(PYTHON) -m venv .venv/audit
	.venv/audit/bin/python -m pip install --quiet pip-audit
	.venv/audit/bin/pip-audit --strict --skip-editable --path "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "jaxrl_cb needs Python 3.11, 3.12 or 3.13; none was found" >&2; exit 2; }
	if command -v uv >/dev/null; then uv venv --quiet --python $(PYTHON) .venv; \
	else $(PYTHON) -m venv .venv && $(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"; fi

.venv/.runtime: pyproject.toml | .venv/bin/python
	if command -v uv >/dev/null; then uv pip install --quiet --python $(BIN)/python --compile-bytecode --editable .; \
	else $(BIN)/python -m pip install --quiet --editable .; fi
	touch $@

.venv/.dev: pyproject.toml | .venv/.runtime
	if command -v uv >/dev/null; then uv pip install --quiet --python $(BIN)/python --compile-bytecode --group dev; \
	else $(BIN)/python -m pip install --quiet --group dev; fi
	touch $@

clean:
	rm -rf .venv
