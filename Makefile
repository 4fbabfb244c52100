# SPDX-License-Identifier: Apache-2.0
# `make demo` and `make test` set everything up in .venv; they need Python 3.11 or newer and a C++17 compiler.
PYTHON ?= python3
BIN := .venv/bin
PIP := PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip install --quiet
STAMPS := .make
SOURCES := $(wildcard runtime/csrc/*.cpp runtime/csrc/*.h runtime/csrc/cuda/*)
DRIVER := build/sanitize/toolkit_fuzz_driver

.PHONY: demo test test-real lint types sanitize bench clean

demo: $(STAMPS)/install
	$(BIN)/python -m benchmarks.demo

test: $(STAMPS)/test
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal --ignore tests/real tests

test-real: $(STAMPS)/test-real
	$(BIN)/python -m pytest tests/real

lint: $(STAMPS)/lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror $(SOURCES) $(wildcard tests/sanitize/*.cpp tests/ptx/*.cpp)

types: $(STAMPS)/lint
	$(BIN)/mypy

bench: $(STAMPS)/bench
	$(BIN)/python -m benchmarks

sanitize: $(DRIVER) $(STAMPS)/test
	TOOLKIT_FUZZ_DRIVER=$(abspath $(DRIVER)) $(BIN)/python -m pytest tests/test_sanitizer_corpus.py

clean:
	rm -rf .venv $(STAMPS) build dist

# Build tools come from the build requirements, so that the machine's own cmake does not matter.
$(STAMPS)/tools: pyproject.toml constraints.txt
	@echo "setting up .venv with the build tools"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(PIP) "scikit-build-core" cmake ninja
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/install: $(STAMPS)/tools CMakeLists.txt $(SOURCES)
	@echo "fetching packages and building the library (a few minutes)"
	@PATH="$(abspath $(BIN)):$$PATH" $(PIP) --no-build-isolation --editable .
	@touch $@

# What a target needs beside the package; torch comes with the extras `train` and `models`.
$(STAMPS)/test: EXTRAS := test,train
$(STAMPS)/test-real: EXTRAS := test,models
$(STAMPS)/bench: EXTRAS := bench,models
$(STAMPS)/lint: EXTRAS := lint,test
$(STAMPS)/test $(STAMPS)/test-real $(STAMPS)/bench $(STAMPS)/lint: $(STAMPS)/install
	@echo "fetching what this needs beside the package: $(EXTRAS)"
	@PATH="$(abspath $(BIN)):$$PATH" $(PIP) --no-build-isolation --editable ".[$(EXTRAS)]"
	@touch $@

$(DRIVER): $(STAMPS)/tools CMakeLists.txt $(SOURCES) tests/sanitize/decode_corpus.cpp
	$(BIN)/cmake -S . -B build/sanitize -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja \
	  -DTOOLKIT_SANITIZE=ON -DTOOLKIT_WERROR=ON
	$(BIN)/cmake --build build/sanitize
