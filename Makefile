# Everything happens in .venv, which is made on first use. Needed: cargo, a C compiler, CPython 3.11 or newer with pip.
# `make test` also makes .venv-oldest, with the oldest Dask, and .venv-conformance, with what Dask's own tests need.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Says that pip has installed what pyproject.toml names; made again when that changes.
READY := $(VENV)/.ready
PEERS := $(VENV)/.peers
OLDEST := .venv-oldest
CONFORMANCE := .venv-conformance

# The tests of the Rust crates link against this interpreter's library, which need not be in a system directory.
LIBDIR = $(shell $(BIN)/python -c "import sysconfig; print(sysconfig.get_config_var('LIBDIR'))")
CARGO = PYO3_PYTHON="$(CURDIR)/$(BIN)/python" LD_LIBRARY_PATH="$(LIBDIR)$${LD_LIBRARY_PATH:+:$$LD_LIBRARY_PATH}" cargo

MATURIN = VIRTUAL_ENV="$(CURDIR)/$(VENV)" PYO3_PYTHON="$(CURDIR)/$(BIN)/python" $(BIN)/maturin

CONFORM = PYTHONPATH="$(CURDIR)/python" $(CONFORMANCE)/bin/python tests/conformance/run.py -n 2

.DEFAULT_GOAL := help
.PHONY: help demo test conformance check bench develop format clean sanitize sanitize-store soak

help:
	@echo "make demo    build, then run the main job on real data"
	@echo "make test    build, then all tests, those of Python on the newest and on the oldest Dask, and a share of Dask's own"
	@echo "make conformance   build, then all of Dask's own tests on ray_dask_get"
	@echo "make check   formatting, lints, types, documentation"
	@echo "make bench   build, then measure beside other schedulers"
	@echo "make sanitize   the tests of the Rust crates with unsafe code, under AddressSanitizer"
	@echo "make soak    build, then 2,000 mixed computes while workers are killed"

$(READY): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "maturin>=1.9.4,<2"
	$(MATURIN) develop --release --quiet --extras dev,demo
	touch $@

develop: $(READY)
	$(MATURIN) develop --release --quiet --skip-install

demo: develop
	$(BIN)/python examples/main_job.py

test: develop sanitize-store $(OLDEST)/.ready $(CONFORMANCE)/.ready
	$(CARGO) test --workspace --quiet
	$(BIN)/python -m pytest
	PYTHONPATH=python $(OLDEST)/bin/python -m pytest
	$(CONFORM) --share

$(OLDEST)/.ready: tests/oldest.txt
	test -x $(OLDEST)/bin/python || $(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	touch $@

# What remains, besides, must fail with a warm pool of dask.multiprocessing too, where the list does not say otherwise.
conformance: develop $(CONFORMANCE)/.ready
	$(CONFORM)
	$(CONFORM) --scheduler=processes --listed

$(CONFORMANCE)/.ready: tests/conformance/requirements.txt
	test -x $(CONFORMANCE)/bin/python || $(PYTHON) -m venv $(CONFORMANCE)
	$(CONFORMANCE)/bin/python -m pip install --quiet --disable-pip-version-check -r $<
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

# The sanitizers are in the stable toolchain; that they may be used has to be said. Their builds are kept apart.
TARGET := $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')
SANITIZED = RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Zsanitizer=$(1)" CARGO_TARGET_DIR=target/$(1) $(CARGO) test --quiet --target $(TARGET)

# All memory the store hands out, under AddressSanitizer: its tests with several processes and threads, too.
sanitize-store: $(READY)
	$(call SANITIZED,address) -p eagleray-store

# The interpreter keeps what it has till the end: of leaks only those of the store are looked for.
sanitize: sanitize-store
	ASAN_OPTIONS=detect_leaks=0 $(call SANITIZED,address) -p eagleray-runtime -p eagleray-python --lib

soak: develop
	$(BIN)/python -m tests.soak

format: $(READY)
	cargo fmt --all
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	cargo clean
	rm -rf $(VENV) $(OLDEST) $(CONFORMANCE)
