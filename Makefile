# Everything runs in .venv, which the first target that needs it builds from
# requirements.lock; nothing else is installed and nothing outside is changed.
.PHONY: demo test soak lint bench lock proto clean
.DEFAULT_GOAL := demo

BIN := .venv/bin
UV ?= uv

# The first Python 3.11 on this machine that can make virtual environments.
IS_3_11 = -c 'import ensurepip, platform, sys; \
	sys.exit(sys.version_info[:2] != (3, 11) or platform.machine() != "x86_64")'
PYTHON ?= $(shell for python in python3.11 python3 python; do \
	$$python $(IS_3_11) 2>/dev/null && echo $$python && break; done)

demo: .venv/ready
	$(BIN)/nightshift demo

test: .venv/ready
	$(BIN)/pytest -q -n 2 --dist loadfile -m "not slow"

soak: .venv/ready
	$(BIN)/pytest -q --hypothesis-profile=exploring
	$(BIN)/python -m tests.server.faults --schedules 100000

lint: .venv/ready
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

bench: .venv/ready
	$(BIN)/python -m benchmarks
	$(BIN)/python -m benchmarks load
	$(BIN)/python -m benchmarks selectors
	$(BIN)/python -m benchmarks training-steps

# For a change of dependencies only; needs uv (https://docs.astral.sh/uv/).
lock:
	$(UV) --no-config pip compile setup.cfg --extra dev --extra cluster --extra postgres \
		--override requirements.overrides \
		--python-version 3.11 --python-platform x86_64-manylinux_2_31 --generate-hashes \
		--default-index https://pypi.org/simple --custom-compile-command "make lock" \
		--quiet --output-file requirements.lock

proto: .venv/ready
	$(BIN)/python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. device_plan/*.proto

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis nightshift-demo

# --clear: what an older lock installed does not stay behind.
.venv/locked: requirements.lock
	@test -n "$(PYTHON)" && $(PYTHON) $(IS_3_11) 2>/dev/null || { echo >&2 \
		"Nightshift needs Python 3.11 for Linux on x86-64, with its venv module, and" \
		"$(if $(PYTHON),$(PYTHON) is not that,none was found here): install it, or" \
		"name it with 'make PYTHON=/path/to/python3.11'."; exit 1; }
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --only-binary :all: --require-hashes -r requirements.lock
	touch $@

.venv/ready: .venv/locked setup.cfg pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@
