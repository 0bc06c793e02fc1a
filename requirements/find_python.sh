#!/bin/sh
# Prints the Python that .venv is made with: the one given, or else the first of 3.11, 3.12 and
# 3.13 that runs. A name on the PATH may be a stub that fails, as pyenv's are. What the build needs
# beside it is asked for here, as pip would miss it minutes later, and not in one line.
missing() {
    echo "$1" >&2
    exit 1
}

[ -n "$1" ] || set -- python3.11 python3.12 python3.13
for python; do
    "$python" -c '' 2>/dev/null && break
    python=
done
[ -n "$python" ] || missing "None of these runs: $*. Install one, or name another by PYTHON=..."
"$python" -c 'import venv, ensurepip' 2>/dev/null ||
    missing "$python has no venv module (ensurepip): install it; Debian calls it python3.x-venv"
include=$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')
[ -f "$include/Python.h" ] ||
    missing "$python has no headers (Python.h) for mmcv's ops: install them; Debian: python3.x-dev"
command -v "${CXX:-g++}" >/dev/null || missing "No ${CXX:-g++}, which mmcv's ops need: install it"
echo "$python"
