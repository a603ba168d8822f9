# `make demo` and `make test` do everything on a machine with Python 3.10+ and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# One thread per test worker, or they fight over the cores.
# Compiled modules are kept also where the environment says not to: each worker and process of a
# test would compile them again.
TEST_ENV := OMP_NUM_THREADS=1 MPLBACKEND=Agg WANDB_MODE=disabled PYTHONDONTWRITEBYTECODE=

# An experiment of each family.
QUICK := binary_classification lstm seq2seq mc_dropout gcn ddpm gpt

.PHONY: demo test quick lowest optimum lint format benchmark docs axe clean

demo: $(VENV)/.runtime
	$(BIN)/lit-models fit --config lstm

test: $(VENV)/.develop
	$(TEST_ENV) $(BIN)/python -m pytest -n 2 --dist worksteal -q $(ARGS)

# The lowest versions that pyproject.toml allows, in an environment of their own; what pip is to
# choose itself: make lowest LEAVE=torch.
LOWEST := .venv-lowest
LOWEST_TESTS := tests/test_cli.py tests/wrong tests/test_contract.py tests/test_resume.py \
	tests/test_linking.py tests/test_lightning_repairs.py tests/test_optim.py \
	tests/callbacks/test_tracking.py tests/data
lowest: $(VENV)/.develop
	$(PYTHON) -m venv $(LOWEST)
	$(BIN)/python -m scripts.lowest --leave $(LEAVE) > $(LOWEST)/lowest.txt
	$(LOWEST)/bin/python -m pip install --quiet -r $(LOWEST)/lowest.txt -e .
	$(TEST_ENV) $(LOWEST)/bin/python -m pytest -n 2 -q $(LOWEST_TESTS) $(ARGS)

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

# Pages, API reference and notebooks, which are executed; a warning is an error.
docs: $(VENV)/.docs
	$(BIN)/python -m scripts.api_page
	$(TEST_ENV) $(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html $(ARGS)

# Serious faults of the built pages by axe, at the width of a phone and in the dark; needs node and
# Chromium or Chrome (CHROMIUM=path).
AXE := docs/_build/axe
axe:
	npm install --silent --no-audit --no-fund --prefix $(AXE) puppeteer-core@24 axe-core@4
	NODE_PATH=$(AXE)/node_modules node scripts/axe.cjs docs/_build/html $(ARGS)

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed: make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet -c constraints.txt -e .
	touch $@

$(VENV)/.develop: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[test,lint]"
	touch $@ $(VENV)/.runtime

$(VENV)/.docs: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[docs]"
	touch $@ $(VENV)/.runtime

clean:
	rm -rf $(VENV) $(LOWEST) build dist *.egg-info docs/_build docs/generated
	rm -rf .pytest_cache .mypy_cache .ruff_cache
