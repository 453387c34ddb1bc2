#!/usr/bin/env bash
# Runs the heavy tests beside the suite: each lane in an environment of its own under outputs/lanes, a line for each.
#
#   ./scripts/test_all.sh                    every lane
#   ./scripts/test_all.sh slow minimum       these
#
#   suite     what CI runs                              slow      tests marked slow: every kill, long trainings, sweeps, small models
#   compile   with inductor; needs a C++ compiler       minimum   the suite on the oldest versions that pyproject.toml allows
#   browser   tests marked browser                      ray       tests marked ray
#   network   tests marked network; a bare clone        gpu       scripts/gpu_smoke.py, and tests marked gpu
#   s3        a world in a bucket of moto's server        bare      the suite with the extra test alone, as scripts/test.sh
#   servers   model servers that are not ours, and llama.cpp and ONNX Runtime in process
#
# Ends not with 0 when a lane failed. WGTORCH_TORCH and WGTORCH_PYTHON as in scripts/setup_env.sh; WGTORCH_OLDEST_TORCH is
# what the lane of the oldest versions installs as PyTorch.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
all=(suite slow compile minimum browser ray network gpu s3 bare servers)
lanes=("${@:-${all[@]}}")
kept=$PWD/outputs/lanes
mkdir -p "$kept"

set_up() { # LANE: its environment, in $python
    local lane=$1 extras=dev
    python=$kept/$lane/bin/python
    if [[ $lane == ray ]]; then extras=dev,ray; fi
    if [[ $lane == bare ]]; then extras=test; fi
    if [[ $lane != minimum ]]; then
        WGTORCH_VENV=$kept/$lane bash scripts/setup_env.sh "$extras"
        return
    fi
    # "name>=1.2" is held at 1.2 for every dependency that the project file names; pip reads the file by itself.
    sed -nE '/^dependencies|^\[project.optional/,/^\[project.scripts/p' pyproject.toml | grep -oE '"[A-Za-z][A-Za-z0-9_.-]*(\[[a-z,]+\])?>=[0-9.]+"' |
        sed -E 's/"|\[[a-z,]+\]//g' | sort -t'>' -k1,1 -k2,2V | awk -F'>=' '{least[$1] = $2} END {for (name in least) print name "==" least[name]}' >"$kept/oldest.txt"
    PIP_CONSTRAINT=$kept/oldest.txt WGTORCH_VENV=$kept/$lane bash scripts/setup_env.sh dev
}

run() { # LANE WORDS...: pytest in the lane's environment; 0 also when nothing carries the mark
    local lane=$1 code=0
    shift
    "$python" -m pytest "$@" </dev/null || code=$?
    ((code != 5)) || echo "no tests"
    ((code == 0 || code == 5))
}

lane() {
    local lane=$1
    if [[ $lane != network ]]; then export HF_HUB_OFFLINE=1; fi
    if [[ $lane == minimum ]]; then export WGTORCH_TORCH=${WGTORCH_OLDEST_TORCH:-$(grep -oE 'torch>=[0-9.]+' pyproject.toml | sed 's/>=/==/')}; fi
    set_up "$lane" || return
    case $lane in
        suite | minimum | bare) run "$lane" ;;
        slow)
            for name in smollm2 wordllama; do "$python" -m wgtorch models add "$name" --yes || return; done
            run "$lane" -m "slow and not network and not gpu" -k "not inductor"
            ;;
        compile) run "$lane" -n 0 -m "slow and not network and not gpu" -k inductor ;;
        browser | ray | network) run "$lane" -m "$lane" ;;
        s3) "$python" -m pip install -q --no-cache-dir "s3fs>=2024.10" "moto[server]>=5" && run "$lane" -n 0 -m s3 ;;
        servers)
            "$python" -m pip install -q --no-cache-dir "xllamacpp>=2026.10" -e ".[onnx]" || return
            run "$lane" -n 0 -m "slow and network" tests/integrations/api/test_foreign_servers.py || return
            run "$lane" -n 0 tests/integrations/llama_cpp tests/integrations/onnx tests/integrations/api/test_transformers_serve.py
            ;;
        gpu) "$python" scripts/gpu_smoke.py && run "$lane" -n 0 -m gpu ;;
    esac
}

failed=0
for name in "${lanes[@]}"; do
    if [[ " ${all[*]} " != *" $name "* ]]; then
        echo "test_all: no lane '$name'; there are: ${all[*]}" >&2
        exit 2
    fi
done
for name in "${lanes[@]}"; do
    result=passed
    (lane "$name") >"$kept/$name.log" 2>&1 || result=FAILED
    if [[ $result == FAILED ]]; then failed=1; fi
    printf '%-8s %s   %s   (%s)\n' "$name" "$result" "$(tail -n 1 "$kept/$name.log")" "outputs/lanes/$name.log"
done
exit "$failed"
