#!/usr/bin/env bash
# The GPU grid in one command: PyTorch eager and compiled (CUDA graphs), onnxruntime CUDA and TensorRT, ViT-B at
# 112, 160 and 224 pixels, batch 1, 4 and 16, fp32 and fp16. Leaves JSON, Markdown and HTML.
#
#   benchmarks/gpu.sh                     on a machine with an NVIDIA GPU
#   benchmarks/gpu.sh --dry-run           print each command, run none
#   benchmarks/gpu.sh --allow-cpu         without a GPU: a tiny model, to see that everything but the GPU works
#   benchmarks/gpu.sh --output DIR        folder of the results (default: benchmarks/results)
#
# What cannot run (no TensorRT, too little memory) is a row that says why. The models have random weights; the exporter
# and PyTorch are needed: pip install "mma-edge[export,bench,gpu,tensorrt]", or with a driver for CUDA 12:
# pip install "mma-edge[export,bench,gpu-cu12,tensorrt-cu12]".
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

output=$here/results dry_run=false allow_cpu=false
while [ $# -gt 0 ]; do
    case "$1" in
        --dry-run) dry_run=true ;;
        --allow-cpu) allow_cpu=true ;;
        --output)
            [ $# -gt 1 ] || { echo "error: --output without a folder; expected --output DIR." >&2; exit 2; }
            output=$2
            shift
            ;;
        -h | --help)
            sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$here/gpu.sh"
            exit 0
            ;;
        *) echo "error: unknown option $1; expected --dry-run, --allow-cpu or --output DIR." >&2; exit 2 ;;
    esac
    shift
done

backends=(eager-cuda compiled-cuda cuda tensorrt)
if $allow_cpu; then
    grid=(--model nano --image-size 32 48 --batch 1 2 --precision fp32 --rounds 1 --turn 0.1)
    backends+=(cpu)
else
    grid=(--model vit-b --image-size 112 160 224 --batch 1 4 16 --precision fp32 fp16 --rounds 7 --turn 1)
fi

# A checkout need not be installed.
python=${PYTHON:-python3}
root=$(dirname "$here")
export PYTHONPATH="$root:$root/trainer:$root/export:$root/benchmarks${PYTHONPATH:+:$PYTHONPATH}"
entry='import sys; from mma_benchmarks.cli import main; sys.exit(main())'

run() {
    printf 'mma-bench'
    printf ' %q' "$@"
    printf '\n'
    $dry_run || "$python" -c "$entry" "$@"
}

if ! $dry_run && ! $allow_cpu && ! nvidia-smi -L >/dev/null 2>&1; then
    echo "error: no NVIDIA GPU answers; expected nvidia-smi -L to list one; check the driver, or add --allow-cpu." >&2
    exit 6
fi

run latency "${grid[@]}" --backend "${backends[@]}" --output "$output"
