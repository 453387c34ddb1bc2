#!/usr/bin/env bash
# Lets the default world live for five passes, with two typed actions among them, and paints what happens, in a folder beneath outputs/.
#
#   ./scripts/demo.sh                                          the same world every time
#   ./scripts/demo.sh --seed 11 --action "go to the sea"       another one; all options of: wgtorch run default
#
# The first start sets up .venv, see scripts/setup_env.sh; later ones take seconds.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup_env.sh
if [[ $# -eq 0 ]]; then
    set -- --action "" --action "where is the sea?" --action "go to the sea"
fi
.venv/bin/wgtorch run default --steps 5 --seed 3 "$@"
echo "The command wgtorch is in .venv: source .venv/bin/activate. To play: pip install 'wgtorch[serve]'"
