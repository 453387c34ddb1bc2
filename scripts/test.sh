#!/usr/bin/env bash
# Runs the tests.
#
#   ./scripts/test.sh                          all but those marked slow, gpu and network
#   ./scripts/test.sh tests/core -k planner    further words go to: python -m pytest
#
# The first start sets up .venv, see scripts/setup_env.sh; later ones take seconds.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup_env.sh test
exec .venv/bin/python -m pytest "$@"
