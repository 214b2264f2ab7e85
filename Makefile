# make demo | test | check | slow | fuzz-native | bench | lease | lease-rehearsal. Each sets up $(VENV) on first use; a later call
# reinstalls nothing and recompiles what changed. Needs python3 (with its headers), a C++ compiler and make.

# The tested version of torch; nothing else sets it.
TORCH ?= torch==2.13.0
PYTHON ?= python3
VENV ?= .venv
DEMO_ARGS ?=
FUZZ_SECONDS ?= 1200
FUZZ_SEED ?= 0

# The machine with a GPU that `make lease` prepares for: it has these versions, and can neither build nor download. The
# images are an archive of train/<class>/<image> and test/<class>/<image>; without it their recipe is left out.
LEASE_VENV ?= .venv-lease
LEASE_TORCH ?= torch==2.11.0
LEASE_PYTHON ?= $(shell for p in python3.12 $(HOME)/.pyenv/versions/3.12.*/bin/python3.12; do "$$p" -c "" 2>/dev/null && echo "$$p" && break; done)
LEASE_IMAGES ?= $(wildcard ../shared/data/cifar10-jpeg.tar.xz)
LEASE_IMAGES_NAME ?= CIFAR-10 (JPEG)

BIN := $(VENV)/bin
DEPS := $(VENV)/.stamp-$(subst /,-,$(subst $(eval) ,-,$(TORCH)))
INSTALL := $(VENV)/.stamp-install
BUILD := $(VENV)/.stamp-build-$(or $(FASTBOUND_CUDA),auto)
NATIVE := $(shell find csrc -type f) CMakeLists.txt setup.py
CXX_SOURCES := $(shell find csrc -name '*.cpp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh')
NVCC := $(firstword $(wildcard $(CUDACXX) $(CUDA_HOME)/bin/nvcc) $(shell command -v nvcc) $(wildcard /usr/local/cuda/bin/nvcc))

# Build tools (cmake, ninja) of the environment come before those of the machine.
export PATH := $(abspath $(BIN)):$(PATH)

# Tests side by side, each on one thread, for which nearly all are too small already; a thread that waits does not spin.
# A worker takes tests from another that has more left. Each holds about 1 GB.
TOGETHER := OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist worksteal

# Triton's interpreter needs processes of its own, because a process either interprets or compiles.
INTERPRETER := TRITON_INTERPRET=1 $(BIN)/python -m pytest
INTERPRETED := tests/kernels/test_triton_interpreter.py tests/kernels/test_triton_power.py tests/kernels/test_triton_values.py
CONTRACT := tests/primitives/test_contract.py tests/primitives/test_layouts.py tests/primitives/test_choice_of_code.py

.PHONY: help install stub test slow check fuzz-native check-gpu-build demo bench lease lease-rehearsal clean

help:
	@sed -n '1,2p' Makefile

# torch comes first and alone, so that nothing later chooses another build of it; then what pyproject.toml's [build-system] asks for.
$(DEPS):
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(TORCH)
	$(BIN)/python -m pip install --quiet $$(sed -n 's/^requires = \[\(.*\)\]/\1/p' pyproject.toml | tr -d '",')
	rm -f $(VENV)/.stamp-torch*
	touch $@

$(INSTALL): $(DEPS) pyproject.toml
	$(BIN)/python -m pip install --quiet --no-build-isolation --editable '.[test,dev,triton]'
	touch $@

$(BUILD): $(INSTALL) $(NATIVE)
	$(BIN)/python setup.py --quiet build_ext --inplace
	rm -f $(VENV)/.stamp-build*
	touch $@

install: $(BUILD)

test: install
	$(TOGETHER) -m "not gpu and not slow and not cuda_on_cpu" tests
	TRITON_INTERPRET=1 $(TOGETHER) $(INTERPRETED)

slow: install
	$(BIN)/python -m pytest -m "slow and not gpu and not cuda_on_cpu" tests
	$(INTERPRETER) -m "not gpu" $(CONTRACT) -k "linear or conv2d or power"

# After a pass was added or changed; `make test` fails until then.
stub: install
	$(BIN)/python tests/write_stub.py

bench: install
	$(BIN)/python -m pytest bench --benchmark-only

lease:
	@test -n "$(LEASE_PYTHON)" || { echo "lease: no python3.12 was found; name one by LEASE_PYTHON=" >&2; exit 2; }
	$(MAKE) --no-print-directory install VENV=$(LEASE_VENV) PYTHON=$(LEASE_PYTHON) TORCH=$(LEASE_TORCH)
	$(LEASE_VENV)/bin/python -m bench.gpu.prepare .lease \
		$(if $(LEASE_IMAGES),--images $(LEASE_IMAGES) --images-name "$(LEASE_IMAGES_NAME)")

# The whole of bench/gpu/lease.sh on tiny sizes: with the versions of the machine with a GPU, then with the tested torch.
lease-rehearsal: lease install
	LEASE_PREPARED=$(abspath .lease) $(LEASE_VENV)/bin/python -m pytest -m slow tests/project/test_lease_order.py tests/project/test_lease_rehearsal.py
	$(BIN)/python -m pytest -m slow tests/project/test_lease_order.py tests/project/test_lease_rehearsal.py

demo: install
	$(BIN)/fastbound train --dataset digits --method ibp --eps 0.1 --out runs/digits --overwrite $(DEMO_ARGS)
	$(BIN)/fastbound certify runs/digits --eps 0.1 --overwrite

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run -Werror $(CXX_SOURCES)
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(MAKE) --no-print-directory fuzz-native FUZZ_SECONDS=25
ifneq ($(NVCC),)
	$(MAKE) --no-print-directory check-gpu-build
else
	@echo "nvcc not found: the CUDA sources were NOT compiled"
endif

# Random calls, valid and spoilt, of every compiled pass and every primitive, with the sanitizers of the compiler.
fuzz-native: install
	$(BIN)/python tests/fuzz_native.py --seconds $(FUZZ_SECONDS) --seed $(FUZZ_SEED)

# Every check of the CUDA code that needs no GPU: registers and spills of each kernel, then the kernels run on the processor.
check-gpu-build: install
	$(BIN)/python tests/check_cuda_build.py $(NVCC)
	$(TOGETHER) -m cuda_on_cpu tests

clean:
	rm -rf build $(VENV)/.stamp-build*
