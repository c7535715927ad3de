#!/usr/bin/env bash
# Every gate but the tests marked slow or soak; what takes a second comes first.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=.venv/bin
export DO_NOT_TRACK=1 PREFECT_SERVER_ANALYTICS_ENABLED=false HF_HUB_OFFLINE=1
"$bin/ruff" format --check .
"$bin/ruff" check --no-cache .
"$bin/lint-imports" --no-cache
report=$(mktemp)
trap 'rm -f "$report"' EXIT
"$bin/pyright" --pythonpath "$bin/python" >"$report" 2>&1 & # a minute of one processor, beside the tests
types=$!
# Five at a time: most tests wait for servers and processes of their own. Threads of
# one test would only get in the way of the others, and most of all those that wait by spinning.
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE
unset PYTHONDONTWRITEBYTECODE # or each of the hundred processes that they start compiles it all
tests=0
"$bin/pytest" --numprocesses 5 --dist loadfile --no-loadscope-reorder -m "not soak and not slow" "$@" || tests=$?
wait "$types" || { cat "$report"; exit 1; }
exit "$tests"
