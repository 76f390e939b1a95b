#!/usr/bin/env bash
# Everything a change must pass: lint, format, types, tests. Arguments replace those of pytest:
#   setup_scripts/test.sh tests/unit/data -k geometry
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=$root/.venv/bin/python

step() {
    echo "test: $*"
    SECONDS=0
    "$python" -m "$@"
    echo "test: $1 took $SECONDS s"
}

"$root/setup_scripts/environment.sh"
cd "$root"
step ruff check .
step ruff format --check .
step mypy
echo "test: pytest $*"
exec "$python" -m pytest "$@"
