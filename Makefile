# The front door. `make help` lists the targets.
SHELL := /bin/bash
BIN := .venv/bin
JOBS ?= $(shell nproc)
FUZZ_SECONDS ?= 60
SOAK_SECONDS ?= 600

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-cluster test test-c test-py asan tsan fuzz soak kill-matrix bench bench-cluster scale lint fmt flags \
	check wheel install clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1|\2/p' Makefile | column -t -s '|'

setup: ## system packages, .venv, our package; quick when nothing changed
	@tools/setup.sh

demo: setup ## the guide's demo on Ray and without Ray, then a text pipeline
	@tools/demo.sh

demo-cluster: setup ## the guide's several nodes as network namespaces (root): Ray, manual start
	@$(BIN)/python tools/demo_cluster.py

test: test-c test-py ## all tests

test-c: setup ## unit tests of the C code
	@tools/ctest.sh dev $(JOBS)

test-py: setup ## tests of the Python packages and end to end
	$(BIN)/python -m pytest

asan: setup ## C tests under AddressSanitizer and UBSan
	@tools/ctest.sh asan $(JOBS)

tsan: setup ## C tests under ThreadSanitizer
	@tools/ctest.sh tsan $(JOBS)

fuzz: setup ## every decoder for FUZZ_SECONDS (60) each
	@tools/fuzz.sh $(FUZZ_SECONDS) $(JOBS)

soak: setup ## a queue with kills at its limit for SOAK_SECONDS (600), then random tests as long
	TQ_TEST_SOAK_S=$(SOAK_SECONDS) TQ_TEST_SOAK_MB=1024 TQ_TEST_SEED=$$$$ \
		$(BIN)/python -m pytest -q -s tests/e2e/test_soak.py
	@tools/soak.sh $(SOAK_SECONDS) $(JOBS)

kill-matrix: setup ## every process killed in every state, KILLS (20) times each
	TQ_TEST_KILLS=$(or $(KILLS),20) $(BIN)/python -m pytest -q -m matrix tests/e2e/test_kill_matrix.py

bench: setup ## measure us and the peers; writes docs/benchmarks.md
	@bench/setup_peers.sh
	$(BIN)/python bench/run.py

bench-cluster: setup ## the same between two nodes, as network namespaces (root)
	@bench/setup_peers.sh
	$(BIN)/python bench/across_nodes.py
	$(BIN)/python bench/broadcast.py

scale: setup ## what 10, 100 and 1,000 workers cost each other, in one process (minutes, 4 GB)
	@cmake --preset dev >/dev/null
	@cmake --build --preset dev -j $(JOBS) --target scale --target scale_rows >/dev/null
	build/dev/tests/scale/scale --check
	build/dev/tests/scale/scale_rows 1000000 1024 10
	build/dev/tests/scale/scale_rows 300000 1 10

lint: setup ## formatters, type checker, clang-tidy, structure
	@tools/lint.sh

fmt: setup ## format C and Python
	git ls-files '*.c' '*.h' | xargs clang-format -i
	$(BIN)/ruff check --quiet --fix .
	$(BIN)/ruff format --quiet .

flags: ## write docs/flags.md and dscli's defaults from the flag table
	python3 tools/generate_flags.py

check: lint test-c ## before every push: lint and the fast tests
	$(BIN)/python -m pytest tests/python

wheel: setup ## wheel and sdist in dist/
	@tools/wheel.sh

PREFIX ?= /usr/local
install: ## programs, library, header and datasystem.pc under PREFIX (/usr/local)
	cmake --preset release >/dev/null
	cmake --build --preset release -j $(JOBS)
	cmake --install build/release --prefix $(PREFIX)

clean: ## remove what was built, not .venv
	rm -rf build dist python/yr/datasystem/bin
	rm -f python/yr/datasystem/_core*.so python/yr/datasystem/libdatasystem.so*
