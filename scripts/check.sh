#!/usr/bin/env bash
# Format, lint, layers and all tests but those marked slow or soak; what takes a second comes first.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=.venv/bin
export DO_NOT_TRACK=1 PREFECT_SERVER_ANALYTICS_ENABLED=false HF_HUB_OFFLINE=1
"$bin/ruff" format --check .
"$bin/ruff" check --no-cache .
"$bin/lint-imports" --no-cache
# Five at a time: most tests wait for servers and processes of their own. Threads of
# one test would only get in the way of the others, and most of all those that wait by spinning.
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE
unset PYTHONDONTWRITEBYTECODE # or each of the hundred processes that they start compiles it all
"$bin/python" -m tests.forking 5 --dist loadfile --no-loadscope-reorder -m "not soak and not slow" "$@"
