#!/usr/bin/env bash
# Everything that needs an NVIDIA GPU, in one command: PyTorch eager and compiled (CUDA graphs), onnxruntime CUDA and
# TensorRT, ViT-B at 112, 160 and 224 pixels and the default model, batch 1, 4 and 16, fp32, fp16, bf16, int8 and fp8,
# each beside the GPU's own matrix product. Every step leaves JSON, Markdown and HTML as soon as it is done.
#
#   benchmarks/gpu.sh                     on a machine with an NVIDIA GPU
#   benchmarks/gpu.sh --wheels DIR        without a network: first install everything from the wheels in DIR
#   benchmarks/gpu.sh --budget MINUTES    begin no step after so many minutes, and stop the one that is running
#   benchmarks/gpu.sh --dry-run           print each command, run none
#   benchmarks/gpu.sh --allow-cpu         without a GPU: a tiny model, to see that everything but the GPU works
#   benchmarks/gpu.sh --output DIR        folder of the results (default: benchmarks/results)
#
# The same command again goes on with what is not done: OUTPUT/.gpu/ holds a mark and a log for each step. A step that
# fails is named at the end, costs the others nothing, and makes the exit code 1. What cannot run within a step (no
# TensorRT, too little memory) is a row that says why. The models have random weights; the exporter and PyTorch are
# needed: pip install "mma-edge[export,bench,gpu,tensorrt]", or with a driver for CUDA 12:
# pip install "mma-edge[export,bench,gpu-cu12,tensorrt-cu12]".
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")

output=$here/results dry_run=false allow_cpu=false wheels='' budget=''
value() { # of option $1, the next word $2
    [ $# -gt 1 ] || { echo "error: $1 without a value; see benchmarks/gpu.sh --help." >&2; exit 2; }
    echo "$2"
}
while [ $# -gt 0 ]; do
    case "$1" in
        --dry-run) dry_run=true ;;
        --allow-cpu) allow_cpu=true ;;
        --output) output=$(value "$@"); shift ;;
        --wheels) wheels=$(value "$@"); shift ;;
        --budget) budget=$(value "$@"); shift ;;
        -h | --help)
            sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$here/gpu.sh"
            exit 0
            ;;
        *)
            echo "error: unknown option $1; expected --wheels, --budget, --dry-run, --allow-cpu or --output." >&2
            exit 2
            ;;
    esac
    shift
done
if [ -n "$budget" ] && ! [[ $budget =~ ^[1-9][0-9]*$ ]]; then
    echo "error: --budget $budget; expected whole minutes, 1 or more." >&2
    exit 2
fi
download="fill it where there is a network: pip download -d DIR '.[export,bench,gpu,tensorrt]' setuptools"
if [ -n "$wheels" ] && ! compgen -G "$wheels/*.whl" >/dev/null; then
    echo "error: $wheels holds no wheels; expected a folder of them; $download." >&2
    exit 2
fi

python=${PYTHON:-python3}
# A checkout need not be installed.
export PYTHONPATH="$root:$root/trainer:$root/export:$root/benchmarks${PYTHONPATH:+:$PYTHONPATH}"
entry='import sys; from mma_benchmarks.cli import main; sys.exit(main())'
marks=$output/.gpu
failed=() left=()

if ! $dry_run && ! $allow_cpu && ! nvidia-smi -L >/dev/null 2>&1; then
    echo "error: no NVIDIA GPU answers; expected nvidia-smi -L to list one; check the driver, or add --allow-cpu." >&2
    exit 6
fi
if ! $dry_run; then
    mkdir -p "$marks"
fi
if [ -n "$wheels" ] && ! $dry_run; then
    environment=$marks/venv
    [ -d "$environment" ] || "$python" -m venv --system-site-packages "$environment"
    python=$environment/bin/python
    install() { # extras
        "$python" -m pip install --no-index --find-links "$wheels" "$root[$1]" >"$marks/install.log" 2>&1
    }
    if ! install export,bench,gpu; then
        missing=$(grep -m1 -oE 'No matching distribution found for .*' "$marks/install.log" || tail -n 1 "$marks/install.log")
        echo "error: $wheels lacks something: $missing; $download." >&2
        exit 11
    fi
    install tensorrt || echo "note: $wheels has no TensorRT: its rows will say so"
fi

step() { # name, then the words of mma-bench
    local name=$1 limit=()
    shift
    printf 'mma-bench'
    printf ' %q' "$@"
    printf '\n'
    if $dry_run; then return; fi
    if [ -e "$marks/$name.done" ]; then
        echo "  done before; delete $marks/$name.done to repeat it"
        return
    fi
    if [ -n "$budget" ]; then
        local rest=$((budget * 60 - SECONDS))
        if [ "$rest" -le 0 ]; then
            left+=("$name")
            return
        fi
        limit=(timeout --signal=INT --kill-after=30 "$rest")
    fi
    if "${limit[@]}" "$python" -c "$entry" "$@" 2>&1 | tee "$marks/$name.log"; then
        touch "$marks/$name.done"
    else
        failed+=("$name")
    fi
}

backends=(eager-cuda compiled-cuda cuda tensorrt)
if $allow_cpu; then
    quick=(--rounds 1 --turn 0.1)
    step tiny latency --model nano --image-size 32 48 --batch 1 2 --precision fp32 "${quick[@]}" \
        --backend "${backends[@]}" cpu --output "$output"
    step default latency --grid --batch 1 --precision fp32 "${quick[@]}" --backend cuda cpu --output "$output"
else
    # What a report needs most comes first.
    for size in 224 112 160; do
        step "vit-b-$size" latency --model vit-b --image-size "$size" --batch 1 4 16 --precision fp32 fp16 \
            --rounds 7 --turn 1 --backend "${backends[@]}" --output "$output"
    done
    step vit-b-224-8-bit latency --model vit-b --image-size 224 --batch 1 4 16 --precision fp16 bf16 int8 fp8 \
        --rounds 5 --turn 1 --backend tensorrt --output "$output"
    step default latency --grid --batch 1 4 16 --rounds 7 --turn 1 --backend "${backends[@]}" --output "$output"
fi
if [ ${#left[@]} -gt 0 ]; then
    echo "out of time: ${left[*]} not begun; the same command goes on there"
fi
if [ ${#failed[@]} -gt 0 ]; then
    echo "error: ${failed[*]} failed; see the logs in $marks, and repeat the command." >&2
    exit 1
fi
