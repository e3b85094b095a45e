# `make help` lists the targets. `make demo` and `make test` do all set-up themselves.

PYTHON ?= python3
VENV := $(CURDIR)/.venv
OLDEST := $(CURDIR)/.venv-oldest
BENCH := $(CURDIR)/.venv-bench
BENCH_CONTEXT ?= --curve
BIN := $(VENV)/bin
ISOLATED := scripts/isolated $(CURDIR)/.state
BED := $(ISOLATED) scripts/with-testbed $(CURDIR)/.testbed

# Both ends of the range of ZenML versions that pyproject.toml states (zenml = ["zenml>=OLDEST,<..."]) are tested.
comma := ,
ZENML_RANGE := $(shell sed -n 's/^zenml = \["zenml\(.*\)"\]$$/\1/p' pyproject.toml)
ZENML_NEWEST ?= zenml[local]$(ZENML_RANGE)
ZENML_OLDEST ?= zenml[local]$(patsubst >=%,==%,$(firstword $(subst $(comma), ,$(ZENML_RANGE))))

export PATH := $(HOME)/.cargo/bin:$(PATH)
export PYTHON
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# maturin sets these for the interpreter that it builds for; the linters' cargo must agree, or each rebuilds what the
# other built.
export PYO3_PYTHON := $(BIN)/python

# One set of features for all Rust tests: the crate is compiled once for them.
TEST_FEATURES := --no-default-features --features test-daemon
CARGO_TEST = cargo $(if $(shell cargo nextest --version 2>/dev/null),nextest run,test) --locked $(TEST_FEATURES)

PYTHON_SOURCES := $(shell find python -name '*.py')
RUST_SOURCES := Cargo.toml Cargo.lock pyproject.toml $(shell find src -name '*.rs')

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup build test test-unit test-rust test-python test-boundary test-integration test-real test-python-real test-zenml test-zenml-newest test-zenml-oldest \
	fuzz fuzz-moby lint lint-rust lint-python format \
	demo demo-down bench bench-context bench-build bench-buildkit bench-run wheel testbed testbed-down clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## check the toolchains, and install missing Debian packages where that is allowed
	@scripts/setup test

build: $(VENV)/.stamp-build ## build the extension into .venv (development profile)

$(VENV)/.stamp-venv: pyproject.toml
	@scripts/setup build
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/pip install --quiet --group dev --group clouds '$(ZENML_NEWEST)'
	@touch $@

$(VENV)/.stamp-build: $(VENV)/.stamp-venv $(RUST_SOURCES)
	PIP_QUIET=1 VIRTUAL_ENV=$(VENV) $(BIN)/maturin develop --locked --quiet
	@touch $@

$(OLDEST)/.stamp-venv: pyproject.toml
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/pip install --quiet --upgrade 'pip>=25.1'
	$(OLDEST)/bin/pip install --quiet 'pytest>=8,<10' --group clouds '$(ZENML_OLDEST)'
	@touch $@

# A wheel, not an editable install: so the package is tested as its users have it.
$(OLDEST)/.stamp-build: $(OLDEST)/.stamp-venv $(VENV)/.stamp-build $(PYTHON_SOURCES)
	rm -rf $(OLDEST)/wheel
	VIRTUAL_ENV=$(VENV) $(BIN)/maturin build --locked --quiet --interpreter $(BIN)/python --out $(OLDEST)/wheel
	$(OLDEST)/bin/pip install --quiet --force-reinstall --no-deps $(OLDEST)/wheel/*.whl
	@touch $@

test: ## run all tests (they need a Docker daemon; the rest is set up)
	@scripts/setup test
	$(BED) $(MAKE) test-unit test-boundary test-integration test-zenml

test-unit: test-rust test-python ## Rust unit and property tests, Python unit tests: no daemon

test-rust:
	@scripts/setup unit
	$(CARGO_TEST) --lib --test it
	cargo test --locked $(TEST_FEATURES) --doc

test-python: build
	$(ISOLATED) $(BIN)/pytest tests/unit

test-boundary: build ## the boundary between Python and Rust: signals, threads, fork, exceptions, events, secrets
	$(ISOLATED) $(BIN)/pytest tests/boundary

test-integration: test-real test-python-real ## real daemon, real registries (plain, and TLS with a password), Podman

test-real:
	@scripts/setup test
	$(BED) $(CARGO_TEST) --test real

test-python-real: build
	@scripts/setup test
	$(BED) $(BIN)/pytest tests/integration

test-zenml: test-zenml-newest test-zenml-oldest ## ZenML end to end, with the newest and the oldest version supported

test-zenml-newest: build
	@scripts/setup test
	$(BED) $(BIN)/pytest tests/zenml

test-zenml-oldest: $(OLDEST)/.stamp-build
	@scripts/setup test
	$(BED) $(OLDEST)/bin/pytest tests/zenml

target/moby-answers: tests/moby/main.go
	@scripts/setup moby
	@mkdir -p target
	cd tests/moby && GO111MODULE=off GOPATH=/usr/share/gocode go build -o $(CURDIR)/$@ .

# Other trees each time; a difference is printed as a whole case.
# libFuzzer needs switches that only a nightly compiler takes without this.
fuzz: export RUSTC_BOOTSTRAP := 1
fuzz: ## fuzz ignore files and Dockerfiles, FUZZ_SECONDS (60) for each target of fuzz/; needs `cargo install cargo-fuzz`
	@for target in ignore_rules ignore_bytes dockerfile; do \
		cargo fuzz run --sanitizer none --fuzz-dir fuzz $$target -- -max_total_time=$(or $(FUZZ_SECONDS),60) || exit; \
	done

fuzz-moby: export COOPER_MOBY_SEED ?= $(shell date +%s)00000
fuzz-moby: export COOPER_MOBY ?= $(CURDIR)/target/moby-answers
fuzz-moby: target/moby-answers ## compare 20,000 random trees and ignore files with what Moby's own matcher makes of them
	cargo test --locked $(TEST_FEATURES) --test it -- --ignored --nocapture live_answers

lint: lint-rust lint-python ## formatters in checking mode, clippy, ruff, mypy, stubtest

lint-rust: build
	cargo fmt --check
	cargo clippy --locked --all-targets --features test-daemon -- -D warnings
	cargo clippy --locked --all-targets $(TEST_FEATURES) -- -D warnings

lint-python: build
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	MYPYPATH=python $(BIN)/stubtest zenml_cooper._core

format: $(VENV)/.stamp-venv ## format all sources
	cargo fmt
	$(BIN)/ruff check --fix --exit-zero --quiet .
	$(BIN)/ruff format --quiet .

demo: ENGINE ?= native
demo: ## a real ZenML pipeline whose image cooper builds and pushes, and Docker runs if it is there; ENGINE=docker builds with it
	@scripts/setup $(if $(filter docker,$(ENGINE)),demo-docker,demo)
	@$(MAKE) --no-print-directory build
	@scripts/isolated .demo/state $(BIN)/python scripts/demo --engine $(ENGINE)

demo-down: ## end the demo's registry and remove what it made
	@scripts/testbed down .demo/bed
	rm -rf .demo

# Times are those of a release, installed as its users have it.
$(BENCH)/.stamp-venv: pyproject.toml
	@scripts/setup build
	$(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/pip install --quiet --upgrade 'pip>=25.1'
	$(BENCH)/bin/pip install --quiet 'maturin>=1.9,<2' '$(ZENML_NEWEST)'
	@touch $@

$(BENCH)/.stamp-build: $(BENCH)/.stamp-venv $(RUST_SOURCES) $(PYTHON_SOURCES)
	rm -rf $(BENCH)/wheel
	$(BENCH)/bin/maturin build --locked --quiet --release --interpreter $(BENCH)/bin/python --out $(BENCH)/wheel
	$(BENCH)/bin/pip install --quiet --force-reinstall --no-deps $(BENCH)/wheel/*.whl
	@touch $@

bench: bench-context bench-build bench-buildkit bench-run ## measure a release: contexts, builds and pipelines, against ZenML's own and other tools

bench-context: $(BENCH)/.stamp-build ## contexts alone; BENCH_CONTEXT='--scale 0.05 --rounds 3' is a quick look
	@scripts/setup bench
	$(ISOLATED) $(BENCH)/bin/python benches/context.py --json .bench/context.json --svg .bench/context.svg $(BENCH_CONTEXT)

bench-build: $(BENCH)/.stamp-build
	@scripts/setup bench
	$(BED) $(BENCH)/bin/python benches/build.py --files 5000 --rounds 3
	$(BED) $(BENCH)/bin/python benches/pipeline.py --files 500 --rounds 3

bench-buildkit: $(BENCH)/.stamp-build ## the BuildKit engine beside buildctl and docker; BUILDKIT_HOST names a worker
	@scripts/setup bench
	$(BED) $(BENCH)/bin/python benches/buildkit.py --files 5000 --rounds 3
	$(BED) $(BENCH)/bin/python benches/buildkit.py --files 50000 --rounds 3

bench-run: $(BENCH)/.stamp-build ## RUN alone: what a command costs, unpacking a base, ZenML's default image
	@scripts/setup bench
	$(BED) $(BENCH)/bin/python benches/run.py --rounds 3

wheel: $(VENV)/.stamp-venv ## build the wheel for CPython 3.10 and up into dist/
	$(BIN)/maturin build --locked --release --out dist
	@ls dist/zenml_cooper-*-cp310-abi3-*.whl

testbed: ## start the test bed and leave it up; then eval "$(scripts/testbed env .testbed)"
	@scripts/setup test
	@scripts/testbed up .testbed

testbed-down: ## end the test bed
	@scripts/testbed down .testbed

clean: testbed-down demo-down ## remove what was built
	rm -rf .venv .venv-oldest .venv-bench .bench .state .testbed dist target python/zenml_cooper/*.so .mypy_cache .pytest_cache .ruff_cache
