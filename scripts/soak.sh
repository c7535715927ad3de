#!/usr/bin/env bash
# What takes minutes or wants a quiet machine, one after the other; about three hours on two cores.
# usage: scripts/soak.sh [tests|faults|night|newer|audit]..., all of them when none is named
set -euo pipefail
cd "$(dirname "$0")/.."
export DO_NOT_TRACK=1 PREFECT_SERVER_ANALYTICS_ENABLED=false HF_HUB_OFFLINE=1
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE
unset PYTHONDONTWRITEBYTECODE
for part in "${@:-tests faults night newer audit}"; do
    for one in $part; do
        echo "== $one"
        case $one in
            tests) .venv/bin/pytest --numprocesses 0 --timeout 7200 -m soak ;;
            faults) .venv/bin/python -m tests.chaos --faults 1000 --longest-outage 30 \
                --longest-sleep 120 --longest-silence 60 ;;
            night) .venv/bin/python -m tests.soak.night --minutes 60 ;;
            newer) .venv/bin/python scripts/newer.py ;;
            audit) # SAFELIGHT_ADVISORIES may name a fuller file, such as OSV's export of PyPI
                .venv/bin/python -m scripts.sbom
                .venv/bin/python -m scripts.audit ${SAFELIGHT_ADVISORIES:+"$SAFELIGHT_ADVISORIES"} ;;
            *) echo "no part of the soak is called $one: tests, faults, night, newer, audit" >&2; exit 2 ;;
        esac
    done
done
