# Everything happens in .venv, which is made on first use. Needed: cargo, a C compiler, CPython 3.11 or newer with pip.
# `make test` also makes .venv-oldest, with the oldest Dask.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Says that pip has installed what pyproject.toml names; made again when that changes.
READY := $(VENV)/.ready
PEERS := $(VENV)/.peers
OLDEST := .venv-oldest

# The tests of the Rust crates link against this interpreter's library, which need not be in a system directory.
LIBDIR = $(shell $(BIN)/python -c "import sysconfig; print(sysconfig.get_config_var('LIBDIR'))")
CARGO = PYO3_PYTHON="$(CURDIR)/$(BIN)/python" LD_LIBRARY_PATH="$(LIBDIR)$${LD_LIBRARY_PATH:+:$$LD_LIBRARY_PATH}" cargo

MATURIN = VIRTUAL_ENV="$(CURDIR)/$(VENV)" PYO3_PYTHON="$(CURDIR)/$(BIN)/python" $(BIN)/maturin

.DEFAULT_GOAL := help
.PHONY: help demo test check bench develop format clean

help:
	@echo "make demo    build, then run the main job on real data"
	@echo "make test    build, then all tests, those of Python on the newest and on the oldest Dask"
	@echo "make check   formatting, lints, types, documentation"
	@echo "make bench   build, then measure beside other schedulers"

$(READY): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "maturin>=1.9.4,<2"
	$(MATURIN) develop --release --quiet --extras dev,demo
	touch $@

develop: $(READY)
	$(MATURIN) develop --release --quiet --skip-install

demo: develop
	$(BIN)/python examples/main_job.py

test: develop $(OLDEST)/.ready
	$(CARGO) test --workspace --quiet
	$(BIN)/python -m pytest
	PYTHONPATH=python $(OLDEST)/bin/python -m pytest

$(OLDEST)/.ready: tests/oldest.txt
	test -x $(OLDEST)/bin/python || $(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	touch $@

check: develop
	cargo fmt --all --check
	$(CARGO) clippy --workspace --all-targets --quiet -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --quiet
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	MYPYPATH=python $(BIN)/stubtest eagleray._native --mypy-config-file pyproject.toml

$(PEERS): $(READY)
	$(MATURIN) develop --release --quiet --extras bench
	touch $@

bench: develop $(PEERS)
	$(BIN)/python benchmarks/run.py

format: $(READY)
	cargo fmt --all
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	cargo clean
	rm -rf $(VENV) $(OLDEST)
