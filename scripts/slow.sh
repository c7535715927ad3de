#!/usr/bin/env bash
# Tests marked slow: whole processes, a browser, a real Ceph; about 20 minutes on two cores.
set -euo pipefail
cd "$(dirname "$0")/.."
export DO_NOT_TRACK=1 PREFECT_SERVER_ANALYTICS_ENABLED=false HF_HUB_OFFLINE=1
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE
unset PYTHONDONTWRITEBYTECODE
.venv/bin/python -m tests.forking 4 --dist loadfile --no-loadscope-reorder -m "slow and not soak" "$@"
