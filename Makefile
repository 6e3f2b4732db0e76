# Everything here runs with Python 3.11 or later and make; what else is needed comes into .venv by the lock, with hashes.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet install
RUN_LOCK := requirements.lock
DEV_LOCK := requirements-dev.lock
BUILD_LOCK := requirements-build.lock
SWIFT_LOCK := tests/swift.lock
RIVAL_LOCK := tests/bench/rival.lock
SAMPLES := $(addprefix tests/images/good/,orientation__Landscape_6.jpg sharp__2569067123_aca715a2ee_o.jpg)
COMPILE := .venv-lock/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock"

.DEFAULT_GOAL := help
.PHONY: help serve swift test containers check fix bench kill lock clean

help: ## say what can be made
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile | expand -t 10

serve: .venv/installed ## serve on http://127.0.0.1:8080 out of ./var, with a few sample images (IMG_... settings count)
	@exec env IMG_AUTOCOMMIT=$${IMG_AUTOCOMMIT:-5} $(BIN)/imgproxy serve $(foreach sample,$(SAMPLES),--try $(sample))

swift: .venv/installed ## run a real Swift to try with, and throw it away at Ctrl-C (SHAPE=4: four devices, three replicas, two regions)
	@exec $(BIN)/python -m tests.swiftbox.here $(SHAPE)

test: .venv/installed ## run every test, on all cores (T="tests/test_grammar.py -k law" runs a part)
	$(BIN)/python -m pytest -n auto --dist loadgroup $(T)

containers: .venv/installed ## build the image and try all of compose.yaml with a Docker engine, some minutes long (RESTARTS=100 for a long run)
	RESTARTS=$(or $(RESTARTS),3) $(BIN)/python -m pytest -s --timeout 3600 tests/containers/image.py tests/containers/walk.py $(T)

check: .venv/installed ## look for what is wrong without running it: form, habits, types
	@wrong=0; for look in "ruff format --check ." "ruff check ." "mypy"; do echo "$$look"; $(BIN)/$$look || wrong=1; done; exit $$wrong

fix: .venv/installed ## put right what can be put right by itself
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

bench: .venv/installed .venv-bench/installed ## measure what is promised about speed and memory, with wrk (B="hits edge" measures a part)
	$(BIN)/python -m tests.bench $(B)

kill: .venv/installed ## kill the writer 2,000 times on files and on a real Swift, workers at 1,000 fetches, and all of a server's, and look for what was lost
	$(BIN)/python -m tests.meta.kill_harness --kills 100 --liar
	$(BIN)/python -m tests.meta.kill_harness --kills 2000
	$(BIN)/python -m tests.meta.kill_harness --kills 2000 --store swift
	$(BIN)/python -m tests.jobs.farm --tasks 1000 --kills 20
	$(BIN)/python -m tests.admin.kill_harness --kills 60 --liar
	$(BIN)/python -m tests.admin.kill_harness --kills 500

lock: ## choose the newest versions of what we depend on, and write them down with their hashes
	test -x .venv-lock/bin/uv || { $(PYTHON) -m venv .venv-lock && .venv-lock/bin/python -m pip --quiet install uv; }
	$(COMPILE) --upgrade --all-extras --group dev --group test-apps --group build pyproject.toml -o $(DEV_LOCK)
	$(COMPILE) --all-extras --constraint $(DEV_LOCK) pyproject.toml -o $(RUN_LOCK)
	$(COMPILE) --group build --constraint $(DEV_LOCK) -o $(BUILD_LOCK)
	$(COMPILE) --group swift-server --upgrade -o $(SWIFT_LOCK)
	$(COMPILE) --group rival --upgrade -o $(RIVAL_LOCK)

clean: ## remove what was made here, but not ./var
	rm -rf .venv .venv-bench .venv-lock .venv-swift .hypothesis .mypy_cache .pytest_cache .ruff_cache dist

# Three steps, so that nothing is ever built or run that no hash vouches for: what builds, what we need, ourselves.
.venv/installed: $(BUILD_LOCK) $(DEV_LOCK) pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "Python 3.11 or later is needed (make PYTHON=...)")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing into .venv"
	@$(PIP) --require-hashes -r $(BUILD_LOCK)
	@$(PIP) --require-hashes --no-build-isolation -r $(DEV_LOCK)
	@$(PIP) --no-deps --no-build-isolation --no-index -e .
	@touch $@

.venv-bench/installed: $(RIVAL_LOCK)
	@test -x .venv-bench/bin/python || $(PYTHON) -m venv .venv-bench
	@.venv-bench/bin/python -m pip --disable-pip-version-check --quiet install --require-hashes -r $(RIVAL_LOCK)
	@touch $@
