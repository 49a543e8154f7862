#!/usr/bin/env bash
# Runs the sample on an emulated 64-bit Arm processor and compares its answers with this machine's. From a clone with
# mma-edge installed (PYTHON names the interpreter, 3.11 or later), on Debian or Ubuntu:
#
#   sudo apt-get install qemu-user-static mmdebstrap debian-archive-keyring
#   benchmarks/aarch64.sh                                  # the default model, backend cpu
#   CPU=max benchmarks/aarch64.sh --bundle BUNDLE --backend cpu --precision int8
#
# Options go to mma-edge run. CPU is qemu's name of the processor (cortex-a76: Raspberry Pi 5; max: all that qemu has,
# 8-bit matrix products too). WORK keeps what is downloaded, half a gigabyte. It takes ten minutes of processor time,
# which says nothing about a real board.
set -euo pipefail
cd "$(dirname "$0")/.."
debian=bookworm python_version=3.11  # Debian 12 and its Python
python=${PYTHON:-python3} cpu=${CPU:-cortex-a76}
work=${WORK:-$(mktemp -d)}
[[ ${WORK:-} ]] || trap 'rm -rf "$work"' EXIT
(($#)) || set -- --backend cpu

for tool in qemu-aarch64-static mmdebstrap "$python"; do
    command -v "$tool" > /dev/null || { echo "error: $tool is not installed; the first lines of $0 say what is" >&2; exit 11; }
done

"$python" -c 'import sys, mma_edge.cli; sys.exit(sys.version_info < (3, 11))' 2> /dev/null \
    || { echo "error: $python is no Python 3.11 with mma-edge; name one with PYTHON=" >&2; exit 11; }

# The packages are only unpacked: qemu finds the loader and the libraries below the root, and no Arm program has to
# run for that, so neither binfmt_misc nor chroot is needed.
root=$work/root site=$work/site
if [[ ! -d $root ]]; then
    mmdebstrap --quiet --variant=extract --architectures=arm64 --include=python3,libstdc++6 "$debian" "$root.partial"
    # Where this file is missing qemu shows the x86 one, which ends onnxruntime's import with a segmentation fault.
    mkdir -p "$root.partial/proc"
    for core in 0 1; do
        printf 'processor\t: %d\nFeatures\t: %s\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x4\nCPU part\t: 0xd0b\nCPU revision\t: 1\n\n' \
            "$core" "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp"
    done > "$root.partial/proc/cpuinfo"
    mv "$root.partial" "$root"
fi
if [[ ! -d $site ]]; then
    platforms=(--platform=manylinux2014_aarch64)
    for minor in {17..36}; do platforms+=("--platform=manylinux_2_${minor}_aarch64"); done
    mapfile -t wanted < <("$python" - <<'EOF'
import tomllib

project = tomllib.load(open("pyproject.toml", "rb"))["project"]
print(*project["dependencies"], *project["optional-dependencies"]["cpu"], *project["optional-dependencies"]["openvino"], sep="\n")
EOF
    )
    "$python" -m pip install -q -c constraints.txt --target "$site.partial" --only-binary=:all: --implementation cp \
        --python-version "$python_version" "${platforms[@]}" "${wanted[@]}"
    mv "$site.partial" "$site"
fi

run='import sys; from mma_edge.cli import main; sys.exit(main(["run", "sample", "--overwrite", *sys.argv[1:]]))'
"$python" -c "$run" --quiet --output "$work/here.jsonl" "$@"
PYTHONPATH=$PWD:$site PYTHONDONTWRITEBYTECODE=1 HOME=$work qemu-aarch64-static -L "$root" -cpu "$cpu" \
    "$root/usr/bin/python$python_version" -c "$run" --output "$work/there.jsonl" "$@"

"$python" - "$work/here.jsonl" "$work/there.jsonl" "$cpu" <<'EOF'
import json
import platform
import sys

here, there = ([json.loads(line) for line in open(path, encoding="utf-8")] for path in sys.argv[1:3])
pairs = [(a["probabilities"], b["probabilities"]) for a, b in zip(here, there)]
same = sum(a["label"] == b["label"] and a["end_s"] == b["end_s"] for a, b in zip(here, there))
largest = max((abs(a[name] - b[name]) for a, b in pairs for name in a), default=0.0)
print(f"{len(here)} answers on {platform.machine()}, {len(there)} on aarch64 ({sys.argv[3]}): the same label in {same}, "
      f"largest difference of a probability {largest:.1e}")
sys.exit(not len(here) == len(there) == same > 0)
EOF
