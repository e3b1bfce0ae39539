# What people type. Each target is one clear command; `make help` lists them.
#   make run CONFIG=f.yml      make demo FOR=20      make bench ROUNDS=5 SECONDS=10 MARKDOWN=1      make chaos MINUTES=3
SHELL := /bin/bash
export PATH := $(PATH):$(HOME)/.cargo/bin:/usr/local/go/bin:/usr/sbin:/sbin
CARGO ?= cargo
CONFIG ?=
FOR ?= 0
ROUNDS ?= 5
SECONDS ?= 10
MARKDOWN ?=
MINUTES ?= 0.1
PACE ?= 2000
ADVISORIES ?=
STANDINS ?=
KERNELS ?=
CASES ?=
# The engine of tools/engine.sh has compose as a program of its own.
COMPOSE = $(shell docker compose version >/dev/null 2>&1 && echo docker compose || echo docker-compose)

# The end-to-end tests load probes: as root, or through sudo where that asks nothing; otherwise they say SKIP.
HOST := $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p' | tr 'a-z-' 'A-Z_')
AS_ROOT := $(shell [ "$$(id -u)" = 0 ] || { sudo -n true 2>/dev/null && echo sudo -E env PATH=$$PATH; })

.PHONY: help setup build run demo test chaos test-kernels images up fuzz bench lint deny dist fmt clean
.DEFAULT_GOAL := help

help: ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 15

setup: ## install what building, testing and benchmarking need (Debian packages)
	@tools/setup.sh all

build: ## build spantap and spantap-agent
	@tools/setup.sh build
	$(CARGO) build --workspace --bins

run: ## run Spantap here; CONFIG=f.yml, without it as demo
	@tools/setup.sh $(if $(CONFIG),build,demo)
	$(CARGO) build -p spantap -p spantap-agent
	@FOR=$(FOR) tools/demo.sh $(CONFIG)

demo: ## a stock nginx, a little traffic, spans on this terminal; FOR=20 stops after 20 s
	@$(MAKE) --no-print-directory run CONFIG=

# Stock kernels of `make test`, each with the hook set that it takes by itself, and what is tried there. In all ten minutes at most:
# what does not end by then, and has not failed, is a SKIP.
TEST_KERNELS := 5.10:auto 6.1:auto 6.12:auto 7.2:auto
TEST_CASES := keep_alive,ipv6,chunked_response,send_recv,http10_close_delimited

test: ## everything: unit tests, end to end with a real Collector, some of that on stock kernels under QEMU
	@tools/setup.sh test
	@tools/setup.sh kernels || echo "kernels are booted if what that takes is here all the same" >&2
	$(CARGO) build --workspace --bins
	@tools/collector.sh >/dev/null || [ $$? = 3 ]
	@tools/kubernetes.sh >/dev/null || [ $$? = 3 ]
	@for what in 20 22 24 packages; do tools/node.sh $$what >/dev/null || [ $$? = 3 ]; done
	@skips=$$(mktemp); trap 'rm -f "$$skips"' EXIT; status=0; \
	$(CARGO) test --workspace --exclude spantap-tests --no-fail-fast || status=$$?; \
	SPANTAP_SKIPS=$$skips $(if $(AS_ROOT),CARGO_TARGET_$(HOST)_RUNNER='$(AS_ROOT)') \
	    $(CARGO) test -p spantap-tests --no-fail-fast || status=$$?; \
	SPANTAP_SKIPS=$$skips TOTAL=600 CASES=$(TEST_CASES) tools/kernels.sh $(TEST_KERNELS) || \
	    { code=$$?; [ $$code = 3 ] || [ $$code = 4 ] || status=$$code; }; \
	if [ -s "$$skips" ]; then echo "skipped: $$(wc -l <"$$skips")"; sort "$$skips" | uniq -c; fi; \
	exit $$status

chaos: ## a Collector that is away, kill -9, a full disk, a spoilt spool, under load; MINUTES=3 PACE=2000 requests a second
	@tools/setup.sh test
	$(CARGO) build --workspace --bins
	@tools/collector.sh >/dev/null
	@$(if $(AS_ROOT),CARGO_TARGET_$(HOST)_RUNNER='$(AS_ROOT)') MINUTES=$(MINUTES) PACE=$(PACE) \
	    $(CARGO) test -p spantap-tests --test chaos -- --test-threads 1

test-kernels: ## the end-to-end tests on stock kernels under QEMU; KERNELS="6.1 6.12:tracepoint" CASES=keep_alive,ipv6
	@tools/setup.sh $(if $(findstring arm64,$(KERNELS)),arm64,kernels)
	$(CARGO) build --workspace --bins
	@CASES=$(CASES) tools/kernels.sh $(KERNELS) || { code=$$?; [ $$code = 3 ] && echo "skipped, see above" || exit $$code; }

images: ## build the container images; STANDINS=1 where no image registry can be reached
	@$(if $(STANDINS),tools/base-images.sh)
	$(COMPOSE) build

up: images ## Collector, forwarder, agent and a demo application in containers
	$(COMPOSE) --profile demo up --no-build

FUZZ_TARGETS := agent_bytes agent_events heads acknowledgements forwarder_bytes host_files
FUZZ_TOOL := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/spantap/cargo-fuzz
fuzz: ## feed hostile bytes to what reads them; FOR=60 seconds for each target
	@[ -x $(FUZZ_TOOL)/bin/cargo-fuzz ] || $(CARGO) install cargo-fuzz --locked --root $(FUZZ_TOOL)
	@if rustc +nightly --version >/dev/null 2>&1; then with="+nightly"; how=; \
	else export RUSTC_BOOTSTRAP=1; with=; how="--sanitizer none"; fi; \
	export PATH=$(FUZZ_TOOL)/bin:$$PATH; for target in $(FUZZ_TARGETS); do \
	    mkdir -p fuzz/found/$$target; echo "== $$target"; \
	    $(CARGO) $$with fuzz run $$how $$target fuzz/found/$$target fuzz/corpus/$$target -- \
	        -max_total_time=$(if $(filter 0,$(FOR)),60,$(FOR)) -rss_limit_mb=512 -max_len=4096 -print_final_stats=1 || exit 1; \
	done

bench: ## what Spantap costs here, as a table; ROUNDS=5 SECONDS=10 MARKDOWN=1
	@tools/setup.sh bench
	$(CARGO) build --release --workspace --bins
	@$(AS_ROOT) target/release/bench --rounds $(ROUNDS) --seconds $(SECONDS) $(if $(MARKDOWN),--markdown)

lint: ## formatting and clippy, warnings are errors
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings

deny: ## licences, sources and the wall between the two programs, by cargo-deny; ADVISORIES=1 asks the RustSec database too
	@deny=$$(tools/cargo-tool.sh cargo-deny) && PATH=$$PATH:$(HOME)/.cargo/bin \
	    $$deny check --hide-inclusion-graph bans licenses sources $(if $(ADVISORIES),advisories)

dist: ## static, hardened, reproducible programs as tarball and Debian package, SBOM and hashes, in dist/
	@tools/setup.sh dist
	@tools/dist.sh

fmt: ## format the Rust sources
	$(CARGO) fmt --all

clean: ## remove what was built (the test Collector and engine stay in ~/.cache/spantap)
	$(CARGO) clean
