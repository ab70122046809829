# Everything runs in .venv, which `make setup` creates; `make demo` and `make test` do so by themselves.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO := runs/demo
UMD := $(BIN)/umd

.PHONY: setup demo test lint bench clean reproduce-table1

setup: $(STAMP)

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

# Three stages on the phantom data, then the same fine-tuning blind on one eye, all three side by side, and a question.
demo: setup
	rm -rf $(DEMO)
	$(UMD) demo --folder $(DEMO)

# Table 1 of UMD, every stage of it; without DATA_ROOT with tiny encoders on phantom data (about 10 minutes):
# make reproduce-table1 [DATA_ROOT=FOLDER] [SCALE=small] [SEEDS="0 1 2"] [ROWS="m3ae umd"]
reproduce-table1: setup
	$(UMD) reproduce table1 $(if $(DATA_ROOT),--data_root $(DATA_ROOT)) $(if $(SCALE),--scale $(SCALE)) \
	    $(if $(SEEDS),--seeds $(SEEDS)) $(if $(ROWS),--rows $(ROWS))

test: setup
	$(BIN)/python -m pytest

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# What a training step costs, by part; see umd/bench/README.md: make bench [BENCH="--scale base --compare old.json"]
bench: setup
	$(BIN)/python -m umd.bench $(BENCH)

clean:
	rm -rf $(DEMO)
