#!/usr/bin/env bash
# Resolves pyproject.toml anew and writes the pins; no address of any index goes into a lock.
set -euo pipefail
export LC_ALL=C
cd "$(dirname "$0")/.."
mkdir -p requirements
report=$(mktemp)
trap 'rm -f "$report"' EXIT
resolve() { # extras -> name==version lines, sorted
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --dry-run --ignore-installed \
        --report "$report" ".$1"
    .venv/bin/python - "$report" <<'PY'
import json, sys
found = (item["metadata"] for item in json.load(open(sys.argv[1]))["install"])
pins = {f"{m['name'].lower()}=={m['version'].split('+')[0]}" for m in found if m["name"] != "safelight"}
print("\n".join(sorted(pins)))
PY
}
resolve "" > requirements/run.lock
resolve "[dev]" | comm -13 requirements/run.lock - > requirements/dev.lock
wc -l requirements/*.lock
