# The first Python here that MediaPipe 0.10.21 has wheels for; or set PYTHON.
PYTHON ?= $(firstword $(foreach p,python3.11 python3.12 python3.10 python3 python,\
	$(shell $(p) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 13))' 2>/dev/null \
	&& echo $(p))))
VENV := .venv
CONSTRAINTS := constraints.txt
# Stages call `python`, which must be the one of the environment.
RUN := PATH="$(CURDIR)/$(VENV)/bin:$$PATH"

# Cells of the grid at the same time, for `make study`.
JOBS ?= 2
# One cell: its model is trained, then scored. DVC lets go of its lock while a stage runs. At 255,
# DVC's status for a stage that failed, xargs would stop before the other cells.
CELL := for stage in train evaluate; do dvc --wait-for-lock repro -s "$$stage$$1" || exit 1; done

# What MediaPipe 1.x needs, and the tests of all that decodes clips and finds faces.
MODEL := $(abspath $(or $(MITFRNET_FACE_LANDMARKER),../shared/models/face_landmarker.task))
LATEST := tests/features tests/data/test_alignment.py tests/media/test_decode.py \
	tests/inspection/test_stills.py tests/pipeline/test_real_clips.py

.PHONY: help install repro study test latest parity check clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "%-10s%s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(VENV)/.installed ## make .venv with the pinned versions

$(VENV)/.installed: pyproject.toml $(CONSTRAINTS)
	@test -n "$(PYTHON)" || { echo "error: no Python 3.10, 3.11 or 3.12 found (set PYTHON=...)" >&2; exit 1; }
	@test -x $(VENV)/bin/pip || $(PYTHON) -m venv --clear $(VENV)
	@echo "Installing into $(VENV): a few minutes, and several GB with PyTorch's CUDA build"
	$(VENV)/bin/python -m pip install --quiet -c $(CONSTRAINTS) -e '.[dev]'
	@$(VENV)/bin/python -c 'import cv2' || { echo "error: OpenCV lacks a system library (on \
	Debian and Ubuntu: apt-get install libgl1 libglib2.0-0)" >&2; exit 1; }
	@touch $@

repro: install ## run the pipeline, print the scores and where the report is
	@$(RUN) dvc repro
	@echo
	@cat report/scores.txt
	@echo
	@echo "Report: $(CURDIR)/report/index.html"

study: install ## as repro, with JOBS=2 cells of the grid side by side
	@$(RUN) dvc repro --glob 'mask@*'
	@$(RUN) dvc stage list --name-only | sed -n 's/^train//p' \
		| $(RUN) xargs -P $(or $(JOBS),2) -n 1 sh -c '$(CELL)' cell
	@$(MAKE) --no-print-directory repro

test: install ## run the tests
	@$(RUN) python -m pytest

latest: ## run the extractors' tests with MediaPipe 1.x and NumPy 2, in .venv-latest
	@if test -f "$(MODEL)"; then \
		$(MAKE) --no-print-directory install VENV=.venv-latest CONSTRAINTS=constraints-latest.txt \
		&& PATH="$(CURDIR)/.venv-latest/bin:$$PATH" MITFRNET_FACE_LANDMARKER="$(MODEL)" \
		python -m pytest $(LATEST); \
	else \
		echo "make latest: skipped, there is no model at $(MODEL)" \
		"(MITFRNET_FACE_LANDMARKER names another place)"; \
	fi

parity: install ## compare the models with MMSA's implementation, which it installs
	$(VENV)/bin/python -m pip install --quiet -c constraints.txt -e '.[dev,parity]'
	@$(RUN) python -m pytest -m parity tests/parity

check: install ## lint, format and types, without changing a file
	@$(RUN) ruff check .
	@$(RUN) ruff format --check .
	@$(RUN) mypy

clean: ## remove what the pipeline made, and DVC's cache of it
	rm -rf plan data models predictions report timings work .dvc/cache .dvc/tmp
