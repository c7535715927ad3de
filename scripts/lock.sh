#!/usr/bin/env bash
# Writes the locks: exact versions, each with the sha256 of every file that its index has. No address
# of any index goes into a lock.
# usage: scripts/lock.sh [hashes]
#   resolves pyproject.toml anew; with `hashes` only looks up the hashes of the versions that stand in
#   the locks, for instance after a line NAME==VERSION was added by hand
set -euo pipefail
export LC_ALL=C
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
pip() { .venv/bin/python -m pip --quiet --disable-pip-version-check "$@"; }
python3 -m venv "$work/locking"
"$work/locking/bin/python" -m pip install --quiet --disable-pip-version-check \
    --require-hashes --only-binary :all: -r requirements/locking.lock

resolve() { # what pip takes -> name==version lines, sorted
    pip install --dry-run --ignore-installed --report "$work/report" "$@"
    .venv/bin/python - "$work/report" <<'PY'
import json, sys
found = (item["metadata"] for item in json.load(open(sys.argv[1]))["install"])
pins = {f"{m['name'].lower()}=={m['version'].split('+')[0]}" for m in found if m["name"] != "safelight"}
print("\n".join(sorted(pins)))
PY
}
pins() { sed -n 's/^\([A-Za-z0-9._-]*==[^ ]*\).*/\1/p' "$@"; } # of locks
hashed() { # lock -> the same with the hashes of all its files, comments kept
    pins "$1" > "$work/pins"
    "$work/locking/bin/uv" pip compile --quiet --no-deps --generate-hashes --no-header --no-annotate \
        --python-version 3.11 "$work/pins" --output-file "$work/hashed" >/dev/null
    # pip may prefer a file of another index, such as the CPU build of torch
    pip install --dry-run --ignore-installed --no-deps --report "$work/report" -r "$work/pins"
    .venv/bin/python - "$1" "$work/hashed" "$work/report" <<'PY'
import json, re, sys
lock, hashed, report = sys.argv[1:]
known = {}
for block in re.split(r"\n(?=\S)", open(hashed).read().strip()):
    name = re.sub(r"[-_.]+", "-", block.partition("==")[0]).lower()
    known[name] = set(re.findall(r"sha256:[0-9a-f]{64}", block))
for item in json.load(open(report))["install"]:
    name = re.sub(r"[-_.]+", "-", item["metadata"]["name"]).lower()
    known[name].add("sha256:" + item["download_info"]["archive_info"]["hashes"]["sha256"])
lines = []
for line in open(lock).read().splitlines():
    pin = re.match(r"[A-Za-z0-9._-]+==[^ ]+", line)
    if pin:
        name = re.sub(r"[-_.]+", "-", line.partition("==")[0]).lower()
        lines.append(" \\\n".join([pin[0], *(f"    --hash={h}" for h in sorted(known[name]))]))
    elif line.startswith("#"):
        lines.append(line)
open(lock, "w").write("\n".join(lines) + "\n")
PY
}

if [ "${1:-}" != hashes ]; then
    resolve . > requirements/run.lock
    resolve ".[dev]" | comm -13 requirements/run.lock - > requirements/dev.lock
    pins requirements/run.lock requirements/dev.lock > "$work/all"
    resolve -c "$work/all" $(grep -E '^prefect(-redis)?==' "$work/all") > requirements/server.lock
fi
for lock in requirements/*.lock; do hashed "$lock"; done
wc -l requirements/*.lock
