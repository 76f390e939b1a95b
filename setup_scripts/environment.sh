#!/usr/bin/env bash
# Makes .venv at the root of the repository and installs sparseunet there, editable, with its tests.
# Does nothing when pyproject.toml, the constraints and the interpreter are as they were last time.
#
#   SPARSEUNET_CONSTRAINTS   a pip constraints file to use instead of setup_scripts/constraints.txt;
#                            "none" for no constraints, which keeps a torch installed beforehand
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=$root/.venv
stamp=$venv/.sparseunet-installed
constraints=${SPARSEUNET_CONSTRAINTS:-$root/setup_scripts/constraints.txt}

main() {
    if ! is_supported "$venv/bin/python"; then
        local python
        python=$(find_python)
        echo "environment: making $venv with $("$python" --version)"
        "$python" -m venv --clear "$venv" || fail "$python cannot make a virtual environment;" \
            "install its venv module (on Debian and Ubuntu the package python3-venv) and run this again"
    fi
    local state
    state=$(describe_state)
    if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$state" ]; then
        echo "environment: $venv is up to date"
        return
    fi
    install
    echo "$state" >"$stamp"
}

install() {
    local options=(--disable-pip-version-check --no-input)
    [ -t 1 ] || options+=(--quiet)
    if [ "$constraints" != none ]; then
        [ -f "$constraints" ] || fail "SPARSEUNET_CONSTRAINTS names no file: $constraints"
        options+=(--constraint "$constraints")
    fi
    echo "environment: installing sparseunet into $venv (the first time torch makes it large)"
    rm -f "$stamp"
    SECONDS=0
    (cd "$root" && "$venv/bin/python" -m pip install "${options[@]}" --editable ".[test]")
    echo "environment: installed in $SECONDS s"
}

find_python() {
    local name
    for name in python3 python3.13 python3.12 python3.11; do
        if is_supported "$name"; then
            command -v "$name"
            return
        fi
    done
    fail "sparseunet needs Python 3.11, 3.12 or 3.13; found $(python3 --version 2>/dev/null || echo none)." \
        "Install one of them so that python3.13, python3.12 or python3.11 is on the PATH"
}

is_supported() {
    command -v "$1" >/dev/null 2>&1 &&
        "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' >/dev/null 2>&1
}

# The checkout's path belongs to the state: an editable installation points at it.
describe_state() {
    {
        echo "$root $constraints"
        "$venv/bin/python" --version
        cat "$root/pyproject.toml"
        [ ! -f "$constraints" ] || cat "$constraints"
    } | "$venv/bin/python" -c 'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())'
}

fail() {
    echo "environment: $*" >&2
    exit 1
}

main
