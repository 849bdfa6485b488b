# The menu of checks: the same here, in pre-commit and in CI. Needs the environment that README's test command makes.
BIN ?= .venv/bin

.PHONY: help check format lint types test fuzz soak

help:  ## List the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/:/' | column -t -s:

check: lint types test  ## Everything that CI runs

format:  ## Format the code and sort imports
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lint:  ## Check format and style
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types:  ## Check types, tests included
	$(BIN)/mypy

test:  ## Run the tests with the coverage floor
	$(BIN)/python -m pytest --cov --numprocesses 3 --dist loadfile --no-loadscope-reorder

soak:  ## Run four RTSP cameras for half an hour with a fault every minute
	$(BIN)/unmask bench soak --minutes 30 --cameras 4

fuzz:  ## Run the property tests with many random examples
	UNMASK_FUZZ=1 $(BIN)/python -m pytest -m fuzz
