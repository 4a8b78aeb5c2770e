# diffbox: make run starts everything, make check and make test are what CI runs.
# VENV=/path takes another virtual environment, PYTHON=/path another interpreter to make it with.

VENV ?= .venv
export VENV PYTHON

.DEFAULT_GOAL := help
.PHONY: help run test check

help: ## show this
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

run: ## start queue, workers and web page, and print the address (ARGS="--port 9000")
	@scripts/setup ui,worker
	@exec $(VENV)/bin/diffbox up $(ARGS)

test: ## run all tests (ARGS="tests/core -k queue" for some)
	@scripts/setup dev
	@scripts/test $(ARGS)

check: ## formatting, lint, types, imports, sizes
	@scripts/setup dev
	@scripts/check
