# Two commands matter: `make export BUNDLE=path/to/wts.h5.zip` and `make test`.
# PYTHON=... uses an environment of your own instead of .venv.

VENV   := .venv
BASE   ?= python3
BUNDLE ?= examples/demo/wts.h5.zip
OUT    ?=
SCAN   ?= examples/demo/scan.npz
BUDGET ?=

# Values reach the recipes through the environment and stand there in double quotes: neither make nor a shell reads what is in
# them, so that spaces, quotes and $ in a path are parts of the path.
ifdef PYTHON
READY :=
else
PYTHON := $(VENV)/bin/python
READY  := $(VENV)/.installed
endif
override GIVEN := $(if $(filter command line environment,$(origin BUNDLE)),yes)
override BUNDLE := $(value BUNDLE)
override OUT := $(value OUT)
override SCAN := $(value SCAN)
override BUDGET := $(value BUDGET)
export BUNDLE OUT SCAN BUDGET GIVEN PYTHON VENV BASE
DEMO := artifacts/wts.h5/wts.h5.zip

# In recipes: the exported BUNDLE, or the demo, which is exported first where that has not been done.
define EXPORTED
if [ -n "$$GIVEN" ]; then set -- "$$BUNDLE"; else \
	test -f $(DEMO) || "$$PYTHON" -m exporters export "$$BUNDLE" || exit; set -- $(DEMO); fi
endef

.DEFAULT_GOAL := help
.PHONY: help export verify verify-cuda reconstruct inspect bench bench-live bench-many test test-all test-interop docs dist lint clean install

help: ## show this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' Makefile

# The versions in constraints.txt are the ones the tests ran with; pyproject.toml says which others should work.
$(VENV)/.installed: pyproject.toml constraints.txt
	test -x "$$VENV/bin/python" || "$$BASE" -m venv "$$VENV"
	"$$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch "$$VENV/.installed"

install: $(READY) ## create .venv and install into it

export: $(READY) ## export BUNDLE (default: the demo) to artifacts/<bundle name>/
	@set -- "$$BUNDLE"; if [ -n "$$OUT" ]; then set -- --out "$$OUT" "$$@"; fi; "$$PYTHON" -m exporters export "$$@"

verify: $(READY) ## repeat the parity check on an exported bundle (default: the exported demo)
	@if [ -n "$$GIVEN" ]; then set -- "$$BUNDLE"; else set -- $(DEMO); fi; "$$PYTHON" -m exporters verify "$$@"

verify-cuda: $(READY) ## the same on a GPU host: every CUDA row must have run; the report goes to artifacts/verify-cuda (or OUT)
	@$(EXPORTED); "$$PYTHON" -m exporters verify --require cuda --report "$${OUT:-artifacts/verify-cuda}" "$$@"

reconstruct: $(READY) ## run the exported BUNDLE on SCAN without PyTorch (default: the demo)
	@$(EXPORTED); "$$PYTHON" -m ptycho_runtime reconstruct "$$@" "$$SCAN" -o "$${OUT:-artifacts/reconstruction.h5}"

inspect: $(READY) ## say what BUNDLE is
	@"$$PYTHON" -m exporters inspect "$$BUNDLE"

bench: $(READY) ## measure every way of running BUNDLE side by side (default: the demo); BUDGET=phase=0.01rad,amp=1% adds a variant
	@set -- "$$BUNDLE"; if [ -n "$$OUT" ]; then set -- --out "$$OUT" "$$@"; fi; \
	if [ -n "$$BUDGET" ]; then set -- --scan "$$SCAN" --budget "$$BUDGET" "$$@"; fi; "$$PYTHON" -m exporters bench "$$@"

bench-many: $(READY) ## measure what many patterns, many parts and two workers cost, as ratios (some minutes; nothing else should run)
	OMP_NUM_THREADS=1 PYTHONPATH=tests/runtime "$$PYTHON" tests/runtime/bench_many.py

bench-live: $(READY) ## measure what a live run keeps up with, as ratios (some minutes; nothing else should run)
	@$(EXPORTED); OMP_NUM_THREADS=1 PYTHONPATH=tests/runtime "$$PYTHON" tests/runtime/bench_live.py "$$@"

test: $(READY) ## run the tests (under ten minutes on two cores)
	OMP_NUM_THREADS=1 "$$PYTHON" -m pytest -q -m "not long" -n 2 --dist loadfile --no-loadscope-reorder --durations 20

test-all: $(READY) ## run the long tests too
	OMP_NUM_THREADS=1 "$$PYTHON" -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder --durations 20

test-interop: ## Ptychodus and viewers open our results, and we read theirs (an environment of its own: .venv-interop)
	test -x .venv-interop/bin/python || "$$BASE" -m venv .venv-interop
	.venv-interop/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[interop]'
	.venv-interop/bin/python -m pytest -q tests/interop

# The site's and the distribution's tools lie in an environment of their own.
define DOCS
test -x .venv-docs/bin/python || "$$BASE" -m venv .venv-docs
.venv-docs/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
endef

docs: ## build the documentation into site/ (strictly: a link that leads nowhere or a notebook that fails ends it)
	$(DOCS)
	.venv-docs/bin/python examples/gallery/make.py docs/gallery
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/python -m mkdocs build --strict

dist: ## build wheel and sdist into dist/ and check them
	$(DOCS)
	rm -rf build dist
	.venv-docs/bin/python -m build --outdir dist .
	.venv-docs/bin/python -m twine check --strict dist/*
	.venv-docs/bin/check-wheel-contents --ignore W009 dist/*.whl

lint: $(READY) ## ruff and mypy
	"$$PYTHON" -m ruff check .
	"$$PYTHON" -m ruff format --check .
	"$$PYTHON" -m mypy

clean: ## remove what builds and exports leave (not the environments)
	rm -rf build dist site docs/gallery .cache *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find artifacts -mindepth 1 -maxdepth 1 ! -name README.md ! -name reference -exec rm -rf {} +
	find . -name __pycache__ -not -path "./$$VENV*" -prune -exec rm -rf {} +
