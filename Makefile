# `make help` lists the targets. Only demo, test and bench need root; they ask for it through sudo.

CARGO  ?= cargo
TARGET := $(or $(CARGO_TARGET_DIR),target)
SUDO   := $(if $(filter 0,$(shell id -u)),,sudo -E)

# Tests that need root run as root, and say so instead of skipping when they cannot.
AS_ROOT := $(if $(SUDO),--config "target.'cfg(unix)'.runner='$(SUDO)'")
export KERNLOOM_REQUIRE_ROOT = 1

.PHONY: build demo test bench lint static deb ship matrix smoke reproducible deps clean help

build: ## build target/release/kernloom
	@scripts/deps.sh build
	$(CARGO) build --release

demo: deps ## attack a protected server in network namespaces and watch, about 85 s
	$(CARGO) build --release --bin kernloom --example demo
	@$(if $(SUDO),echo "make: network namespaces need root: running the demo through sudo")
	@$(SUDO) $(TARGET)/release/examples/demo $(TARGET)/release/kernloom

test: deps lint ## lint, then every test, those of the kernel side as root
	@$(if $(SUDO),echo "make: the kernel tests need root: running the tests through sudo")
	$(CARGO) test $(AS_ROOT)

bench: deps ## measure the data plane against its budgets
	@$(if $(SUDO),echo "make: loading programs needs root: running the benchmarks through sudo")
	$(CARGO) bench $(AS_ROOT)

lint: ## rustfmt and clippy, warnings are errors
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets -- -D warnings

static: ## build target/static/kernloom-{x86_64,aarch64,armv7}, each one file that runs anywhere
	@scripts/deps.sh static
	scripts/static.sh

deb: static ## pack them as target/static/kernloom_VERSION_{amd64,arm64,armhf}.deb
	packaging/deb.sh

ship: deb ## check binaries, packages and units as they will be installed
	@scripts/deps.sh ship
	$(SUDO) tests/ship/check.sh

matrix: ## boot them on every kernel and card that is promised, and write KERNELS.md
	@scripts/deps.sh static matrix
	scripts/matrix.sh

smoke: ## the part of the matrix that every change must pass
	@scripts/deps.sh static matrix
	scripts/matrix.sh --smoke

reproducible: ## build the x86_64 binary twice, in two places, and compare
	@scripts/deps.sh static
	scripts/reproducible.sh

deps: ## install what is missing, with apt-get
	@scripts/deps.sh build lab

clean: ## remove everything built
	$(CARGO) clean

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 14
