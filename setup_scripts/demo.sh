#!/usr/bin/env bash
# From nothing to a segmentation: makes the environment and runs `sparseunet demo` with the given flags.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
"$root/setup_scripts/environment.sh"
exec "$root/.venv/bin/sparseunet" demo "$@"
