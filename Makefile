# SPDX-License-Identifier: Apache-2.0
# `make help` says what there is. Everything that is made goes to build/ and to ${XDG_CACHE_HOME:-~/.cache}/temper.

PRESET ?= release
PYTHON := build/venv/bin/python

.PHONY: help setup build build-all demo demo-dpo test test-full chaos bench bench-server format lint clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install what is needed (Debian packages, Rust, Python environment, servers for tests, a model); does nothing twice
	@python3 tools/set_up.py
	@$(PYTHON) tools/models/smollm2.py build/models/SmolLM2-135M-Instruct

build: setup ## build the programs into build/release/bin
	@cmake --preset $(PRESET) $(if $(VERBOSE),,--log-level=NOTICE)
	@cmake --build --preset $(PRESET) --target programs

build-all: build
	@cmake --build --preset $(PRESET)

demo: build ## train a small model on a real task, take it home, measure it (KEEP=1: leave the server up)
	@cmake --build --preset $(PRESET) --target parity_probe
	@$(PYTHON) tools/demo/run.py $(if $(KEEP),--keep)

demo-dpo: build ## teach a small model which answers are preferred: win rate on held-out pairs before and after (KEEP=1)
	@$(PYTHON) tools/demo/dpo.py $(if $(KEEP),--keep)

test: build-all ## every test and lint; ends with one summary line
	@$(PYTHON) tools/run_tests.py --preset $(PRESET)

test-full: build-all ## the slow rest: long forms of tests, every test again under AddressSanitizer and UBSan, and long fuzzing
	@$(PYTHON) tools/run_tests.py --preset $(PRESET) --only long
	@$(MAKE) --no-print-directory build-all PRESET=asan
	@$(PYTHON) tools/run_tests.py --preset asan --fuzz-seconds 120 --at-a-time 1

chaos: build ## jobs with a fault at every point, and with random ones (SEED=1 ROUNDS=10; the seed is printed, and repeats them)
	@TEMPER_BIN=$(CURDIR)/build/$(PRESET)/bin TEMPER_CHAOS_SEED=$(or $(SEED),$(shell date +%N)) TEMPER_CHAOS_ROUNDS=$(or $(ROUNDS),10) \
		OMP_WAIT_POLICY=PASSIVE $(PYTHON) -m pytest -v tests/e2e/test_chaos.py

bench: build-all ## training steps against transformers, TRL and PEFT on this machine (BENCH="--works chat …": tests/bench/bench.py)
	@python3 tools/set_up.py --bench
	@build/bench-venv/bin/python tests/bench/bench.py $(BENCH)

bench-server: build-all ## what one server carries: 1,000 ranks, 200 watchers, 10,000 jobs behind it (2 min; build/reports/load.json)
	@$(PYTHON) tests/bench/server_load.py $(BENCH)

format: setup ## format C++, Python and Rust in place
	@$(PYTHON) tools/lint.py --fix

lint: setup ## check format, style, proto and layering
	@$(PYTHON) tools/lint.py

clean: ## remove what was built (caches outside the repository stay)
	rm -rf build/release build/asan build/fuzz build/rust build/candle build/demo build/demo-dpo build/bench build/reports
