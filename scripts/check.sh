#!/usr/bin/env bash
# Every gate, in the order that fails fastest.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=.venv/bin
export DO_NOT_TRACK=1 PREFECT_SERVER_ANALYTICS_ENABLED=false HF_HUB_OFFLINE=1
"$bin/ruff" format --check .
"$bin/ruff" check --no-cache .
"$bin/lint-imports" --no-cache
"$bin/pyright" --pythonpath "$bin/python"
"$bin/pytest" "$@"
