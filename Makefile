## llmzip: make TARGET
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
TORCH ?= 2.13.0
CORPUS ?= corpora
LEVEL ?= 6
# Waiting threads of torch give up the core soon: on a busy machine spinning costs a factor of ten.
export GOMP_SPINCOUNT ?= 1000

.PHONY: help setup demo test test-slow check fuzz golden docs bench readme-tables bench-mixer bench-train bench-logs bench-windows bench-speed bench-levels embedded dist clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

# Without a GPU the CPU build of torch is enough, and some gigabytes smaller. A configured index may have it as
# VERSION+cpu; else it comes from PyTorch's own index. With a GPU, PyPI's build.
$(BIN)/torch.stamp:
	$(PYTHON) -m venv $(VENV)
	@if command -v nvidia-smi >/dev/null 2>&1; then \
	  $(BIN)/pip install -q "torch==$(TORCH)"; \
	else \
	  $(BIN)/pip install -q "torch==$(TORCH)+cpu" 2>/dev/null || \
	  $(BIN)/pip install -q "torch==$(TORCH)" --index-url https://download.pytorch.org/whl/cpu || \
	  $(BIN)/pip install -q "torch==$(TORCH)"; \
	fi
	@touch $@

$(BIN)/llmzip.stamp: $(BIN)/torch.stamp pyproject.toml
	$(BIN)/pip install -q -e .
	@touch $@

$(BIN)/test.stamp: $(BIN)/llmzip.stamp
	$(BIN)/pip install -q -e ".[test,bench]"
	@touch $@

setup: $(BIN)/llmzip.stamp ## install llmzip into .venv

demo: $(BIN)/llmzip.stamp ## compress, decompress and compare a text; sizes beside gzip, zstd, xz
	@$(BIN)/python benchmarks/demo.py corpora/prose-en.txt

test: $(BIN)/test.stamp ## run the tests
	$(BIN)/python -m pytest -q -n 2 -m "not slow"

test-slow: $(BIN)/test.stamp ## run all tests, the slow ones too
	$(BIN)/python -m pytest -q

check: $(BIN)/test.stamp ## lint and types
	$(BIN)/pip install -q ruff mypy
	$(BIN)/ruff check llmzip tests benchmarks tools corpora
	$(BIN)/ruff format --check llmzip tests benchmarks tools corpora
	$(BIN)/mypy

fuzz: $(BIN)/test.stamp ## more random damage and more random bytes
	LLMZIP_FUZZ=deep $(BIN)/python -m pytest -q tests/fuzz tests/property

golden: $(BIN)/test.stamp ## make the golden files anew; look at the difference before you commit it
	LLMZIP_UPDATE_GOLDEN=1 $(BIN)/python -m pytest -q tests/engine tests/golden tests/mixing
	$(BIN)/python tests/vectors/generate.py

docs: $(BIN)/test.stamp ## write docs/cli.md anew from --help
	LLMZIP_UPDATE_DOCS=1 $(BIN)/python -m pytest -q tests/cli -k docs

bench: $(BIN)/test.stamp ## llmzip and others on the text files under CORPUS="DIR..."; LEVEL=6, MODEL=name, BENCH=options
	$(BIN)/llmzip bench --text-only --level $(LEVEL) --model $(or $(MODEL),default) --output bench-results $(BENCH) $(CORPUS)

readme-tables: $(BIN)/llmzip.stamp ## the results in README.md from bench-results/results.json
	$(BIN)/python tools/readme_tables.py bench-results/results.json

bench-mixer: $(BIN)/test.stamp ## what each part of the mixer is worth, on the .txt files under CORPUS=DIR
	$(BIN)/pip install -q matplotlib
	$(BIN)/python benchmarks/mixer.py $(CORPUS) --output bench-results

bench-train: $(BIN)/test.stamp ## speed of llmzip train, with its share of the device's peak
	$(BIN)/python benchmarks/train.py --output bench-results

bench-logs: $(BIN)/test.stamp ## the worked example: new logs under MODEL=DIR, made by llmzip train from LOGS=DIR
	$(BIN)/python benchmarks/logs.py $(MODEL) --train $(LOGS)/2026-03-0[2-9]-*.log --test $(LOGS)/2026-03-11-*.log

bench-windows: $(BIN)/llmzip.stamp ## Equal-Info windows of TEXT=FILE beside the paper's figures
	$(BIN)/python benchmarks/windows.py $(TEXT) --model $(MODEL)

bench-speed: $(BIN)/test.stamp ## speed and its parts for TEXT=FILE by MODEL=name; CHECK=1 tells regressions, UPDATE=1 stores
	$(BIN)/python benchmarks/speed.py $(or $(TEXT),corpora/prose-en.txt) --model $(or $(MODEL),default) \
	  $(if $(CHECK),--check) $(if $(UPDATE),--update) --output bench-results

bench-levels: $(BIN)/test.stamp ## size and speed of -1 to -9 for TEXT=FILE, with a chart
	$(BIN)/python benchmarks/levels.py $(or $(TEXT),corpora/prose-en.txt) --output bench-results

embedded: $(BIN)/llmzip.stamp ## put MODEL=DIR, made by llmzip train, into the package as NAME=name
	$(BIN)/python tools/make_embedded.py $(MODEL) --name $(NAME)

dist: ## build wheel and source archive
	$(PYTHON) -m pip wheel -q --no-deps -w dist .

clean: ## remove what was built
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .hypothesis bench-results
