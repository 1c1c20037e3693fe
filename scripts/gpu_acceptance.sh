#!/usr/bin/env bash
# What the published models cost on this machine's GPU: one NVIDIA GPU, no network, no weights. Where there are two,
# ring attention in bfloat16 is compared with one GPU too; with one, the report says that it was not checked.
#
#   scripts/gpu_acceptance.sh            run the parts that are not done yet, then write the report
#   scripts/gpu_acceptance.sh --list     print each part's command, run nothing
#
# OUT=run/gpu_acceptance  results, one folder a part      PYTHON=.venv/bin/python  the interpreter
# LIMIT_S=540             no part starts that is expected to end later     ENGINE=xdit  or diffusers
#
# A part that is done is not run again, one that failed is. Exit code: 0 all done, 1 a part failed, 2 no GPU, 3 parts
# are left for another call. Nothing here changes the GPU's clocks, limits or modes.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
out="${OUT:-run/gpu_acceptance}" python="${PYTHON:-.venv/bin/python}" limit_s="${LIMIT_S:-540}" engine="${ENGINE:-xdit}"
mode="${1:-}" left=0 failed=0
gpus=$(nvidia-smi -L 2>/dev/null | grep -c "^GPU") || true

# The parts in the order of their worth, each with the seconds that it is expected to take.
all_parts() {
  local flux=black-forest-labs/FLUX.1-dev sdxl=stabilityai/stable-diffusion-xl-base-1.0
  local sd35=stabilityai/stable-diffusion-3.5-medium sigma=PixArt-alpha/PixArt-Sigma-XL-2-1024-MS
  local compiled=(--use_torch_compile --compile_mode)
  part doctor 30 "$python" -m mlenergy doctor
  part tests 150 "$python" -m pytest -q -m gpu tests/measure tests/engines
  if [ "$mode" = --list ] || ((gpus > 1)); then
    part ring-parity 120 "$python" -m pytest -q -m gpu tests/engines/test_ring_on_gpu.py
  fi
  benchmark flux-eager 90 $flux 50
  benchmark flux-compiled 150 $flux 50 "${compiled[@]}" regional
  benchmark flux-cudnn 80 $flux 50 --attention_backend cudnn
  benchmark flux-compiled-cudnn 150 $flux 50 "${compiled[@]}" regional --attention_backend cudnn
  benchmark flux-first-block-cache 60 $flux 50 --use_fbcache
  benchmark sdxl-eager 45 $sdxl 30
  benchmark sdxl-compiled 120 $sdxl 30 "${compiled[@]}" whole
  benchmark sd35-medium-eager 50 $sd35 28
  benchmark pixart-sigma-eager 45 $sigma 20
}

# name, expected seconds, model, steps, options: a run of seeded random weights in the model's own dtype.
benchmark() {
  local name=$1 expected_s=$2 model=$3 steps=$4
  shift 4
  part "$name" "$expected_s" "$python" -m mlenergy.diffusion.benchmark --engine "$engine" --device cuda \
    --require_energy --no_save_images --warmup_iters 1 --benchmark_iters 4 "$@" \
    workload:text-to-image --workload.model_id "$model" --workload.weights random --workload.dataset bundled \
    --workload.inference_steps "$steps" --workload.height 1024 --workload.width 1024 \
    --workload.base_dir "$out/$name"
}

# name, expected seconds, command: list it, or run it unless it is done or would take too long.
part() {
  local name=$1 expected_s=$2
  shift 2
  if [ "$mode" = --list ]; then
    echo "$name: $*"
  elif [ -e "$out/$name.done" ]; then
    return
  elif ((SECONDS + expected_s > limit_s)); then
    left=1
  else
    echo "== $name"
    if "$@" 2>&1 | tee "$out/$name.log"; then touch "$out/$name.done"; else failed=1; fi
  fi
}

if [ "$mode" = --list ]; then
  all_parts
  exit
fi
if ((gpus == 0)); then
  echo "gpu_acceptance: no NVIDIA GPU is visible here (nvidia-smi -L); run it on a machine that has one" >&2
  exit 2
fi
mkdir -p "$out"
all_parts
"$python" scripts/gpu_acceptance_report.py "$out" || failed=1
if ((failed)); then exit 1; fi
if ((left)); then
  echo "gpu_acceptance: parts are left that would end after the limit of $limit_s s; call it again" >&2
  exit 3
fi
