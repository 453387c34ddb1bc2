#!/usr/bin/env bash
# Makes .venv in the repository and installs wgtorch in it; does nothing when that has been done and nothing has changed.
#
#   scripts/setup_env.sh [EXTRAS]          EXTRAS of wgtorch, as in: scripts/setup_env.sh test
#
#   WGTORCH_TORCH    what to install as PyTorch, before all else and alone. Further words are options of pip. By default
#                    "torch==2.13.0": the build for CPUs (0.2 GB to fetch, 0.7 GB on disk), or, on Linux with NVIDIA's driver,
#                    that with CUDA (3 GB and 6 GB) if pip finds it. Where pip has only that one and there is no driver, the
#                    build for CPUs is fetched by uv, which knows where PyTorch keeps it; if it cannot, pip's is taken.
#   WGTORCH_PYTHON   the Python to use; by default the first one of version 3.11 or newer that is found.
#   WGTORCH_VENV     the folder of the environment; .venv by default.
#
# All but PyTorch is installed by uv, from where pip is configured to find packages; where uv is not to be had or fails, by pip.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
extras=${1:-}
torch=${WGTORCH_TORCH:-torch==2.13.0}
venv=${WGTORCH_VENV:-$PWD/.venv}
stamp=$venv/.wgtorch-${extras:-plain}

fail() {
    echo "setup_env: $*" >&2
    exit 1
}

is_new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

find_python() {
    local name
    if [[ -n ${WGTORCH_PYTHON:-} ]]; then
        is_new_enough "$WGTORCH_PYTHON" || fail "WGTORCH_PYTHON=$WGTORCH_PYTHON is no Python 3.11 or newer"
        echo "$WGTORCH_PYTHON"
        return
    fi
    for name in python3 python3.11 python3.12 python3.13 python3.14 python; do
        if is_new_enough "$name"; then
            command -v "$name"
            return
        fi
    done
    fail "needs Python 3.11 or newer; found $(python3 --version 2>/dev/null || echo "none"). Install one, or name it in WGTORCH_PYTHON."
}

# What the environment was made from; another hash means that it has to be brought up to date.
wanted=$({ cat pyproject.toml; echo "$extras $torch $PWD"; } | cksum)
if [[ -f $stamp && $(<"$stamp") == "$wanted" ]] && is_new_enough "$venv/bin/python"; then
    exit 0
fi

if ! is_new_enough "$venv/bin/python" || ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    python=$(find_python)
    echo "Making ${venv#"$PWD"/} with $("$python" --version) ..."
    rm -rf "$venv"
    # Some systems ship Python without ensurepip; the pip beside it then serves the new environment.
    if ! "$python" -m venv "$venv" >/dev/null 2>&1; then
        rm -rf "$venv"
        "$python" -m venv --without-pip "$venv" || fail "$python cannot make virtual environments"
        "$python" -m pip --python "$venv/bin/python" install --quiet pip || fail "there is no pip for $python; install it"
    fi
fi

pip() {
    "$venv/bin/python" -m pip --disable-pip-version-check "$@"
}

brings_cuda() { # whether what pip would install asks for CUDA's libraries
    [[ $(pip install --quiet --dry-run --no-deps --ignore-installed --report - "$torch" 2>/dev/null) =~ \"(nvidia|cuda)- ]]
}

configured() { # NAME: what pip's files or its variables say of one of its options
    pip config list 2>/dev/null | sed -nE "s/^[a-z:]+\\.$1='(.*)'\$/\\1/p"
}

install_by_uv() { # finds and fetches in seconds what takes pip minutes, from where pip would; fails where it cannot, and pip is asked
    local each words=(--quiet --python "$venv/bin/python" --index-strategy unsafe-best-match)
    each=$(configured index-url)
    words+=(${each:+--default-index "${each%%$'\n'*}"})
    for each in $(configured extra-index-url); do
        if [[ $each != file://* || -d ${each#file://} ]]; then words+=(--index "$each"); fi
    done
    for each in $(configured find-links); do
        if [[ $each == *://* || -e $each ]]; then words+=(--find-links "$each"); fi
    done
    for each in $(configured constraint); do words+=(--constraint "$each"); done
    each=$(configured cert)
    ${each:+env SSL_CERT_FILE="${each%%$'\n'*}"} "$venv/bin/python" -m uv pip install "${words[@]}" "$@"
}

has_nvidia() {
    [[ -e /proc/driver/nvidia ]] || command -v nvidia-smi >/dev/null
}

install_torch() {
    local words cpu="the build for CPUs: 0.2 GB to fetch, 0.7 GB on disk" cuda="the build with CUDA: 3 GB to fetch, 6 GB on disk"
    read -ra words <<<"$torch"
    if [[ -n ${WGTORCH_TORCH:-} ]]; then
        echo "Installing $torch, as WGTORCH_TORCH says ..."
    elif [[ $OSTYPE != linux* ]] || ! brings_cuda; then
        echo "Installing $torch ($cpu) ..."
    elif has_nvidia; then
        echo "Installing $torch ($cuda) ..."
    else
        echo "Installing $torch ($cpu) ..."
        if pip install --quiet uv && "$venv/bin/python" -m uv pip install --quiet --python "$venv/bin/python" --torch-backend cpu "$torch"; then
            return
        fi
        echo "That could not be fetched; installing what pip finds ($cuda). WGTORCH_TORCH names another, see the head of this script."
    fi
    pip install --quiet "${words[@]}"
}

rm -f "$stamp"
install_torch
echo "Installing wgtorch${extras:+[$extras]} ..."
pip install --quiet uv && install_by_uv --editable ".${extras:+[$extras]}" || pip install --quiet --editable ".${extras:+[$extras]}"
echo "$wanted" >"$stamp"
