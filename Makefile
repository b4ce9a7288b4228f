# All that is made goes into .venv and .run; git ignores both and `make clean` removes them.
#
#   make run        sslocal and ssserver on this machine, with lines to paste; Ctrl-C ends it
#   make test       the tests                     make test ARGS='-k socks'   some of them
#   make lint       style and types
#   make coverage   the tests, and which lines and branches they ran
#   make bench      ours beside every other implementation that is here, into docs/benchmarks.md (needs cc)
#   make bench-smoke   every row of it for a moment, to see whether it works
#   make audit      known vulnerabilities of the libraries; asks the package index, so it is not part of `make test`
#   make conformance   our pair against the kit; ARGS for others: see docs/conformance.md
#   make fuzz       strange input for every parser, a minute each; ARGS='dns acl --seconds 600' for some and longer
#   make soak       177,511 requests with faults, then a million connections; ARGS='--minutes 5' for less (needs cc)
#   make clean      back to a fresh checkout
#
# PYTHON=python3.13 chooses the interpreter; without it, the first one from 3.11 on is taken.

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PYTHONS := $(PYTHON) $(if $(PYTHON),,python3 python3.14 python3.13 python3.12 python3.11)
PYTEST := pytest
ARGS :=

.PHONY: run test lint coverage bench bench-smoke audit conformance fuzz soak clean

run: $(INSTALLED)
	@$(BIN)/python scripts/demo.py

test: $(INSTALLED)
	$(BIN)/python -m $(PYTEST) $(ARGS)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

coverage: $(INSTALLED)
	$(BIN)/coverage erase
	$(MAKE) test PYTEST='coverage run -p -m pytest'
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

bench: $(INSTALLED)
	$(BIN)/python -m bench --store $(ARGS)

bench-smoke: $(INSTALLED)
	$(BIN)/python -m bench --smoke $(ARGS)

# Two lists: what is installed here, and the lowest versions that setup.cfg allows. --strict, because a
# library that cannot be looked up is no library without vulnerabilities.
AUDIT := .run/audit/bin/pip-audit --strict --no-deps --disable-pip --progress-spinner off -r

audit: $(INSTALLED)
	@test -x .run/audit/bin/pip-audit || $(BIN)/python -m venv --clear .run/audit
	@.run/audit/bin/python -m pip install --quiet --disable-pip-version-check --upgrade pip-audit
	@$(BIN)/python -m pip freeze --exclude-editable >.run/installed.txt
	@sed -n '/^install_requires/,/^$$/s/^ *\([A-Za-z0-9]*\)>=\([0-9.]*\),.*/\1==\2/p' setup.cfg >.run/lowest.txt
	$(AUDIT) .run/installed.txt
	$(AUDIT) .run/lowest.txt

conformance: $(INSTALLED)
	$(BIN)/python -m tests.conformance --local '$(BIN)/sslocal -c {config}' --server '$(BIN)/ssserver -c {config}' $(ARGS)

fuzz: $(INSTALLED)
	$(BIN)/python -m tests.fuzz $(ARGS)

soak: $(INSTALLED)
	$(BIN)/python -m tests.soak $(ARGS)

clean:
	rm -rf $(VENV) .run build dist *.egg-info .coverage* .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Made anew when what is to be installed has changed, and when an upgrade took its interpreter away.
$(INSTALLED): setup.cfg pyproject.toml
	@for python in $(PYTHONS); do \
	  if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then break; fi; \
	  python=; \
	done; \
	if [ -z "$$python" ]; then \
	  echo "shadowrelay needs Python 3.11 or later, and there is none: $(strip $(PYTHONS))" >&2; \
	  echo "Debian and Ubuntu: apt install python3 python3-venv    macOS: brew install python" >&2; \
	  exit 1; \
	fi; \
	echo "making $(VENV) with $$("$$python" -V) …"; \
	if ! "$$python" -m venv --clear $(VENV); then \
	  rm -rf $(VENV); \
	  echo "no virtual environment can be made; on Debian and Ubuntu: apt install python3-venv" >&2; \
	  exit 1; \
	fi
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@
