# What a newcomer runs; each target works on a fresh checkout.
#
#   make demo       the analysis on this machine alone
#   make test       everything that must hold
#   make demo-lan   the analysis in an office of six machines made on this one
#   make fuzz       ten million inputs for all that strangers may send
#   make soak       an office in which something goes wrong all the time

VENV := .venv
PYTHON := $(VENV)/bin/python
READY := $(VENV)/ready

MAKEFLAGS += --no-print-directory
# Without its bytecode Python compiles each module again at each start.
unexport PYTHONDONTWRITEBYTECODE
# Where a lab can be built: here if we are root, in a user namespace if not.
LAB := $(PYTHON) -m aemesh.testing.lab --

DATA := demo/data
FILES := 4
EVENTS := 50000

.PHONY: help demo demo-lan test test-long check pytest bench fuzz soak setup clean

help:
	@sed -n 's/^#   //p' Makefile

$(READY): pyproject.toml .ci/venv
	@.ci/venv $(VENV)
	@touch $@

setup: $(READY)

$(DATA)/made: $(READY) examples/make_dimuon.py
	$(PYTHON) examples/make_dimuon.py $(DATA) --files $(FILES) --events $(EVENTS)
	@touch $@

demo: $(DATA)/made
	$(VENV)/bin/aemesh run examples/dimuon.py $(DATA)/*.root --out demo/dimuon.png
	@echo "the spectrum is in demo/dimuon.png"

demo-lan: $(DATA)/made
	@.ci/setup iproute2 nftables util-linux mount
	$(PYTHON) examples/demo_lan.py $(DATA)/*.root --out demo/dimuon-lan.png

test: $(READY)
	@.ci/setup
	@.ci/kerberos $(VENV)
	$(MAKE) check
	$(MAKE) pytest

check: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

# In a user namespace everybody is called root: pytest's own folder is taken by the real one.
pytest: TEMPROOT := $(if $(filter 0,$(shell id -u)),,PYTEST_DEBUG_TEMPROOT=$$(mktemp -d))
pytest: $(READY)
	$(TEMPROOT) $(LAB) $(PYTHON) -m pytest

test-long: $(READY)
	@.ci/setup
	$(LAB) $(PYTHON) -m pytest -m long

bench: $(READY)
	@.ci/setup iproute2 nftables util-linux mount openssh-server openssh-client
	@.ci/extra $(VENV) bench || echo "peers that cannot be installed are left out"
	$(PYTHON) -m bench.run $(if $(ONLY),--only $(ONLY),--write)

# atheris has wheels for some versions of Python only, and no test needs it.
fuzz: $(READY)
	@$(PYTHON) -c 'import atheris' 2>/dev/null || .ci/extra $(VENV) fuzz
	$(PYTHON) -m tests.fuzz $(if $(RUNS),--runs $(RUNS)) $(if $(SECONDS),--seconds $(SECONDS)) $(TARGET)

soak: $(READY)
	@.ci/setup iproute2 nftables util-linux mount libfaketime
	$(PYTHON) -m soak $(if $(SECONDS),--seconds $(SECONDS)) $(if $(SEED),--seed $(SEED)) \
		$(if $(STORY),--story $(STORY))

clean:
	rm -rf $(VENV) demo build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .fuzz \
		.import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
