.DEFAULT_GOAL := help
.PHONY: help setup demo test check bench clean

PYTHON ?= python3
BIN := .venv/bin
RUN := outputs/demo

help: ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 14

setup: $(BIN)/.ready ## make .venv with everything that demo, test and bench need

$(BIN)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: setup ## train nano with UC-LoRA on 4,000 real digits, sample, judge: about 5 minutes on 2 cores
	$(BIN)/python run.py experiment=demo paths.run_dir=$(RUN) resume=auto
	$(BIN)/python run.py task=sample ckpt=$(RUN) n=256 out=$(RUN)/samples/final
	$(BIN)/python run.py task=evaluate metric=digits samples=$(RUN)/samples/final
	@echo "grid: $(RUN)/samples/final/grid.png  curves: $(RUN)/curves.png"

test: setup ## every test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

check: setup ## format, lint, types and the fast tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m 'not slow'

bench: setup ## time what this project does against plainer forms of it, in one process, one thread
	for bench in lora conditioning step nano sampling features frechet diffusers_unet dropin; do $(BIN)/python bench/$$bench.py || exit 1; done

clean: ## remove .venv and caches; runs in outputs/ stay
	rm -rf .venv .pytest_cache .ruff_cache
