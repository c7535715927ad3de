# Two commands: `make run` sets up and runs the main job offline, `make test` sets up and tests.
VENV := .venv
BIN := $(VENV)/bin

.PHONY: run test types slow setup setup-dev check soak bench sheets chaos starter lock images clean

run: setup
	@$(BIN)/python -m examples.main_job

test: setup-dev
	@scripts/check.sh

types: setup-dev
	@$(BIN)/pyright --pythonpath $(BIN)/python

# Tests of whole processes: workers that are killed, the browser, S3 as Ceph has it.
slow: setup-dev
	@scripts/slow.sh

# Every gate there is.
check: test types slow

# What takes minutes or wants a quiet machine: tests marked soak.
soak: setup-dev
	@scripts/soak.sh

bench: setup-dev
	@$(BIN)/python -m tests.benchmarks

# Draws docs/images/quality-*.webp anew and prints the noise floors of docs/benchmarks.md.
sheets: setup-dev
	@$(BIN)/python -m tests.benchmarks.sheets

# 1,000 faults while real runs go through real workers: about an hour, see docs/chaos.md.
chaos: setup-dev
	@$(BIN)/python -m tests.chaos --faults 1000 --longest-outage 30

# Trains the model in weights/starter from nothing: about 2 hours on one core, continues where it was left.
starter: setup-dev
	@$(BIN)/python -W ignore -m training.starter

setup:
	@scripts/setup.sh run

setup-dev:
	@scripts/setup.sh dev

lock: setup-dev
	@scripts/lock.sh

# Writes the digests of foreign images into infra/; needs docker and their registries.
images: setup
	@$(BIN)/python scripts/pin_images.py

clean:
	rm -rf $(VENV) build dist
