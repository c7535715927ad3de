#!/usr/bin/env bash
# What takes minutes or wants a quiet machine, one after the other.
set -euo pipefail
cd "$(dirname "$0")/.."
export DO_NOT_TRACK=1 PREFECT_SERVER_ANALYTICS_ENABLED=false HF_HUB_OFFLINE=1
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE
unset PYTHONDONTWRITEBYTECODE
.venv/bin/pytest --numprocesses 0 --timeout 7200 -m soak "$@"
