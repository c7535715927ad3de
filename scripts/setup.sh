#!/usr/bin/env bash
# Creates the virtual environment and installs what is locked; does nothing when it is up to date.
# usage: scripts/setup.sh run|dev
set -euo pipefail
cd "$(dirname "$0")/.."
kind=${1:?run or dev}
venv=.venv
stamp="$venv/.installed-$kind"
locks=(requirements/tools.lock requirements/run.lock requirements/no-deps.lock)
[ "$kind" = dev ] && locks+=(requirements/dev.lock)
fingerprint=$(cat pyproject.toml scripts/setup.sh "${locks[@]}" | sha256sum | cut -d' ' -f1)
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$fingerprint" ]; then exit 0; fi

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }
install_debian() { # best effort where apt is there; what cannot be had is skipped by name in tests
    command -v apt-get >/dev/null || return 0
    local missing=()
    for package in "$@"; do
        dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
    done
    [ ${#missing[@]} = 0 ] && return 0
    echo "installing Debian packages: ${missing[*]}"
    as_root apt-get update -qq || true
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

install_servers() { # for tests that start their own: no cluster is made, and no service stays
    command -v apt-get >/dev/null || return 0
    if ! compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null; then
        local none=/etc/postgresql-common/createcluster.d/none.conf
        as_root mkdir -p "${none%/*}"
        echo 'create_main_cluster = false' | as_root tee "$none" >/dev/null
        install_debian postgresql || true
        as_root rm -f "$none"
    fi
    if ! command -v redis-server >/dev/null; then
        install_debian redis-server
        as_root update-rc.d redis-server disable
        as_root invoke-rc.d redis-server stop
    fi
}

python=$(command -v python3.11 || command -v python3 || true)
[ -n "$python" ] || { echo "Python 3.11 or newer is needed: apt-get install python3" >&2; exit 1; }
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
    || { echo "found $("$python" --version), Python 3.11 or newer is needed" >&2; exit 1; }
if [ ! -x "$venv/bin/pip" ]; then
    "$python" -c 'import ensurepip' 2>/dev/null || install_debian "$(basename "$("$python" -c 'import sys; print(f"python{sys.version_info[0]}.{sys.version_info[1]}")')")-venv"
    "$python" -m venv "$venv"
fi
install_debian libgomp1
[ "$kind" = dev ] && install_debian git radosgw ceph-mon ceph-osd chromium fonts-noto-color-emoji ffmpeg libimage-exiftool-perl || true
[ "$kind" = dev ] && install_servers || true

pip() { "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --progress-bar off "$@"; }
echo "installing Python packages (about 2 minutes the first time)"
for lock in "${locks[@]}"; do # wheels alone, so that nothing of a package runs while it is installed
    pip --no-deps --require-hashes --only-binary :all: -r "$lock"
done
# The CUDA build of torch names NVIDIA's libraries, by exact versions; the CPU build names none.
if ! "$venv/bin/python" -c 'import torch' 2>/dev/null; then
    pip --only-binary :all: "$(sed -n 's/^\(torch==[^ ]*\).*/\1/p' requirements/run.lock)"
fi
pip --no-deps --no-build-isolation --editable .
# What Python would do at each start, where it may not write into the checkout.
"$venv/bin/python" -m compileall -q examples flows presets safelight tasks
"$venv/bin/python" -m safelight.cli.new_database
printf '%s' "$fingerprint" > "$stamp"
