# make demo     installs once, then the main job on packaged data
# make test     installs once, then the tests; those that encode, search or train a second time with two threads
# make quick    installs once, then the tests that are not slow
# make install  only sets up .venv
# make lint     ruff, mypy --strict, and that imports run one way
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test quick lint install clean

demo: install
	$(BIN)/mimo demo

test: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile
	OMP_NUM_THREADS=2 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile -m threads

quick: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile -m "not slow"

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

install: $(STAMP)

$(STAMP): pyproject.toml $(wildcard constraints/*.txt)
	@command -v $(PYTHON) >/dev/null || { \
	  echo "make: $(PYTHON) was not found: install Python 3.11 or newer, or name one: make $(MAKECMDGOALS) PYTHON=/path/to/python" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "make: $(PYTHON) is $$($(PYTHON) --version 2>&1), Python 3.11 or newer is needed: name one: make $(MAKECMDGOALS) PYTHON=/path/to/python" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "make: $(PYTHON) cannot make virtual environments: install its venv package (Debian, Ubuntu: apt install python3-venv)" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	pins=constraints/py$$($(BIN)/python -c 'import sys; print("%d%d" % sys.version_info[:2])').txt; \
	if test -f $$pins; then set -- --constraint $$pins; else \
	  set --; echo "make: no tested set for this Python: the newest releases that fit are installed"; fi; \
	$(BIN)/python -m pip install --quiet "$$@" --editable '.[dev]'
	touch $(STAMP)

clean:
	rm -rf $(VENV)
