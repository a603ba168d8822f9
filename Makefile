# `make demo` and `make test` do everything on a machine with Python 3.10+ and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# One thread per test worker: two workers with two threads each fight over two cores.
TEST_ENV := OMP_NUM_THREADS=1 MPLBACKEND=Agg WANDB_MODE=disabled

# An experiment of each family.
QUICK := binary_classification lstm seq2seq mc_dropout gcn ddpm gpt

.PHONY: demo test quick optimum lint format benchmark clean

demo: $(VENV)/.runtime
	$(BIN)/lit-models fit --config lstm

test: $(VENV)/.develop
	$(TEST_ENV) $(BIN)/python -m pytest -n 2 -q $(ARGS)

# A minute: the rooms, the readers, the contract of an experiment of each family, one fit.
quick: $(VENV)/.develop
	$(TEST_ENV) $(BIN)/python -m pytest -n 2 -q tests/test_rooms.py tests/data/test_csv_tabular.py \
	  tests/data/test_csv_series.py tests/data/test_tokenization.py tests/data/test_graph_data.py \
	  "tests/test_contract.py::test_fit_through_the_command[lstm]" \
	  $(foreach name,$(QUICK),"tests/test_contract.py::test_every_parameter_gets_a_gradient[$(name)]") \
	  $(ARGS)

# Trains every experiment to its bar; about an hour on two cores.
optimum: $(VENV)/.develop
	$(TEST_ENV) $(BIN)/python -m pytest -m slow -n 2 --timeout 3600 -q $(ARGS)

lint: $(VENV)/.develop
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.develop
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

benchmark: $(VENV)/.runtime
	$(BIN)/python -m scripts.benchmark $(ARGS)

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed: make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet -c constraints.txt -e .
	touch $@

$(VENV)/.develop: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[test,lint]"
	touch $@ $(VENV)/.runtime

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
