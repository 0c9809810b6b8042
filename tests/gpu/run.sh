#!/usr/bin/env bash
# Rho on a GPU: the numerical tests as far as they take a device, then scoring, CLM, SLM and generation at TinyLlama's shape as a table
# that names the GPU. The published TorchSharp and its native library run over the libtorch of an installed CUDA PyTorch: its torch/lib
# decides, and RHO_LIBTORCH names it. PyTorch 2.10 fits (any CUDA it was built for, pip install torch==2.10.0); another version is
# refused in one line, since TorchSharp 0.107 is built for 2.10 and C++ has no stable interface between versions.
#
#   tests/gpu/run.sh pack                   with the .NET SDK: makes .build/gpu.tar.xz, the programs and .NET, to be carried to a bare machine
#   tests/gpu/run.sh [--device cuda:0]      needs the NVIDIA driver, python3 with torch 2.10 (PYTHON names another one), and that file or the SDK
#   tests/gpu/run.sh --device cpu --sizes default --steps 3     tries the script itself, with the programs' own libtorch
#
# Writes .build/gpu.md, or what --out names. It has been tried on the CPU only: no GPU could be had yet.
set -euo pipefail
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd)
packed=$root/.build/gpu
built=$root/.build/dotnet/bin
tests=(Rho.Model.Tests Rho.Model.Inference.Tests Rho.Training.Tests)
export DOTNET_CLI_TELEMETRY_OPTOUT=1 DOTNET_NOLOGO=1

build() {
  local project
  for project in "${tests[@]}" Rho.Benchmarks; do
    dotnet build "$root/tests/$project" -c Release --artifacts-path "$root/.build/dotnet" -v quiet --nologo
  done
}

pack() {
  local project dotnet
  dotnet=$(dirname "$(readlink -f "$(command -v dotnet)")")
  rm -rf "$packed"
  mkdir -p "$packed/dotnet"
  cp -r "$dotnet/host" "$dotnet/shared" "$packed/dotnet"
  for project in "${tests[@]}" Rho.Benchmarks; do cp -r "$built/$project/release" "$packed/$project"; done
  # The list of dependencies names libtorch's files, so they have to be there; PyTorch's are loaded.
  find "$packed" \( -name 'libtorch*' -o -name 'libc10*' -o -name 'libgomp*' \) -exec truncate -s 0 {} +
  tar -C "$root/.build" -cf - gpu | xz -T0 > "$packed.tar.xz"
  rm -r "$packed"
  ls -lh "$packed.tar.xz"
}

device=cuda sizes=tinyllama steps=5 out=$root/.build/gpu.md
while (($#)); do
  case $1 in
    pack) build; pack; exit ;;
    --device|--sizes|--steps|--out) declare "${1#--}=$2"; shift 2 ;;
    *) echo "run.sh: $1 is not known; see the head of tests/gpu/run.sh" >&2; exit 2 ;;
  esac
done

if [[ -e $packed.tar.xz ]]; then
  [[ -d $packed ]] || tar -C "$root/.build" -xJf "$packed.tar.xz"
  export DOTNET_ROOT=$packed/dotnet DOTNET_SYSTEM_GLOBALIZATION_INVARIANT=1
else
  build
fi
program() { [[ -d $packed ]] && echo "$packed/$1/$1" || echo "$built/$1/release/$1"; }

if [[ $device == cuda* ]]; then
  python=${PYTHON:-python3}
  read -r version folder < <("$python" -c 'import torch; print(torch.__version__, torch.__path__[0] + "/lib")') || { echo "run.sh: $python has no torch" >&2; exit 1; }
  [[ $version == 2.10.* ]] || { echo "run.sh: PyTorch $version does not fit TorchSharp 0.107: 2.10 is needed (pip install torch==2.10.0)" >&2; exit 1; }
  export RHO_LIBTORCH=$folder
  name="$(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader -i "$([[ $device == *:* ]] && echo "${device#*:}" || echo 0)"), PyTorch $version"
else
  name="$(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -n 1), on the CPU"
fi

failed=0
for project in "${tests[@]}"; do
  echo "run.sh: $project on $device" >&2
  RHO_TEST_DEVICE=$device "$(program "$project")" -method '*PyTorch*' -method '*SplitInMicroBatches*' -method '*InBFloat16*' -method '*AnyMicroBatchSize*' -class- '*.OtherProcessorTests' || failed=1
done

mkdir -p "$(dirname "$out")"
{
  printf '%s\n\n| sizes | type | what | tokens/s | step, ms |\n| --- | --- | --- | ---: | ---: |\n' "$name"
  for dtype in bfloat16 float32; do
    for mode in score clm slm-cached generate-batch-1 generate-batch-8; do
      if line=$("$(program Rho.Benchmarks)" worker --device "$device" --sizes "$sizes" --dtype "$dtype" --mode "$mode" --steps "$steps"); then
        sed -E "s/.*\"tokens_per_second\": ([0-9.]+), \"step_ms\": ([0-9.]+).*/| $sizes | $dtype | $mode | \1 | \2 |/" <<<"$line"
      else
        echo "| $sizes | $dtype | $mode | failed | |"
      fi
    done
  done
} | tee "$out"
exit "$failed"
