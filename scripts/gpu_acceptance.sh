#!/usr/bin/env bash
# What the published models cost on this machine's GPU: one NVIDIA GPU, no network, no weights. Where there are two,
# ring attention in bfloat16 is compared with one GPU too; with one, the report says that it was not checked.
#
#   scripts/gpu_acceptance.sh            run the parts that are not done yet, then write the report
#   scripts/gpu_acceptance.sh --list     print each part's command, run nothing
#   scripts/gpu_acceptance.sh --dry_run  plan each part's command as for one H200, without a GPU; run nothing
#
# OUT=run/gpu_acceptance  results, one folder a part      PYTHON=.venv/bin/python  the interpreter
# LIMIT_S=540             no part starts that is expected to end later     ENGINE=xdit  or diffusers
#
# Parts are in the order of their worth. Each ends at its own time limit; one that is done is not run again, one that
# failed is. Exit code: 0 all done, 1 parts failed (their names are on stderr), 2 no GPU or a wrong option, 3 parts are
# left for another call. Nothing here changes the GPU's clocks, limits or modes.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
out="${OUT:-run/gpu_acceptance}" python="${PYTHON:-.venv/bin/python}" limit_s="${LIMIT_S:-540}" engine="${ENGINE:-xdit}"
mode="${1:-}" left=() failed=()
gpu_names=$(nvidia-smi -L 2>/dev/null | grep "^GPU") || true
gpus=$(grep -c "^GPU" <<<"$gpu_names") || true
memory_mib=$(nvidia-smi --query-gpu=memory.total --format=csv,noheader,nounits 2>/dev/null |
  grep -xE "[0-9]+" | sort -n | head -1) || true

# The parts in the order of their worth, each with the seconds that it is expected to take.
all_parts() {
  local flux=black-forest-labs/FLUX.1-dev sdxl=stabilityai/stable-diffusion-xl-base-1.0
  local sd35=stabilityai/stable-diffusion-3.5-medium sigma=PixArt-alpha/PixArt-Sigma-XL-2-1024-MS
  local flux2=black-forest-labs/FLUX.2-dev qwen=Qwen/Qwen-Image-2512 z_image=Tongyi-MAI/Z-Image-Turbo
  local regional=(--use_torch_compile --compile_mode regional)
  local vae=(--vae_channels_last --compile_vae --cudnn_benchmark)
  local stack=("${regional[@]}" "${vae[@]}" --attention_backend cudnn)
  part doctor 30 "$python" -m mlenergy.diffusion doctor
  # Energy by the counter, by the integral of sampled power, and by nvidia-smi; stages; memory.
  part energy 60 "$python" -m pytest -q -s -m gpu tests/measure
  benchmark flux-eager 90 $flux 50
  benchmark flux-best 210 $flux 50 "${stack[@]}" --fuse_qkv
  benchmark flux-compiled 150 $flux 50 "${regional[@]}"
  # With and without the instrument, its sampling of power included, in turns.
  part overhead 120 "$python" scripts/bench_overhead.py --json "$out/overhead.json"
  # Our measured window over a bare diffusers pipeline with the same levers, both on the GPU, in turns.
  if fits 76 vs-bare-eager; then vs_bare vs-bare-eager 180; fi
  if fits 76 vs-bare-best; then vs_bare vs-bare-best 300 "${stack[@]}" --fuse_qkv; fi
  if ((listing)) || ((gpus > 1)); then
    part ring-parity 120 "$python" -m pytest -q -m gpu tests/engines/test_ring_on_gpu.py
  fi
  benchmark sdxl-eager 45 $sdxl 30
  benchmark sd35-medium-eager 50 $sd35 28
  benchmark pixart-sigma-eager 45 $sigma 20
  video wan-1.3b-eager 120 Wan-AI/Wan2.1-T2V-1.3B-Diffusers 6
  # Each lossless lever alone.
  benchmark flux-cudnn 80 $flux 50 --attention_backend cudnn
  if ((listing)) || offers_fa3_hub; then
    benchmark flux-fa3-hub 90 $flux 50 --attention_backend fa3-hub
  fi
  benchmark flux-fuse-qkv 80 $flux 50 --fuse_qkv
  benchmark flux-vae-channels-last 80 $flux 50 --vae_channels_last
  benchmark flux-compile-vae 110 $flux 50 --compile_vae
  benchmark flux-cudnn-benchmark 80 $flux 50 --cudnn_benchmark
  benchmark flux-static-shapes 150 $flux 50 "${regional[@]}" --compile_fullgraph --compile_static_shapes
  benchmark flux-coordinate-descent 240 $flux 50 "${regional[@]}" --inductor_coordinate_descent
  benchmark flux-max-autotune 360 $flux 50 "${regional[@]}" --inductor_mode max-autotune-no-cudagraphs
  benchmark sdxl-best 180 $sdxl 30 --use_torch_compile --compile_mode whole --inductor_conv_1x1_as_mm \
    --unet_channels_last --fuse_qkv "${vae[@]}"
  benchmark sd35-medium-best 180 $sd35 28 "${stack[@]}"
  benchmark pixart-sigma-best 180 $sigma 20 "${stack[@]}" --fuse_qkv
  benchmark flux-first-block-cache 60 $flux 50 --use_fbcache # lossy: no aim counts it
  # Newer models, where the GPU's memory holds them.
  benchmark z-image-eager 60 $z_image 9
  benchmark z-image-best 150 $z_image 9 "${regional[@]}" "${vae[@]}"
  if fits 118 flux2-best; then benchmark flux2-best 330 $flux2 50 "${stack[@]}" --fuse_qkv; fi
  if fits 64 qwen-image-best; then
    benchmark qwen-image-best 400 $qwen 50 "${regional[@]}" --compile_vae --cudnn_benchmark
  fi
  part tests 150 "$python" -m pytest -q -m gpu tests/engines
}

# name, expected seconds, model, steps, options: a run of seeded random weights in the model's own dtype.
benchmark() {
  local name=$1 expected_s=$2 model=$3 steps=$4
  shift 4
  run_of "$name" "$expected_s" "$@" workload:text-to-image --workload.model_id "$model" \
    --workload.inference_steps "$steps" --workload.height 1024 --workload.width 1024
}

# The same for one video an iteration, in the model's own size and length.
video() {
  local name=$1 expected_s=$2 model=$3 steps=$4
  shift 4
  run_of "$name" "$expected_s" "$@" workload:text-to-video --workload.model_id "$model" \
    --workload.inference_steps "$steps"
}

# name, expected seconds, options and workload.
run_of() {
  local name=$1 expected_s=$2
  shift 2
  part "$name" "$expected_s" "$python" -m mlenergy.diffusion.benchmark --engine "$engine" --device cuda \
    --require_energy --no_save_images --warmup_iters 1 --benchmark_iters 4 "$@" \
    --workload.weights random --workload.dataset bundled --workload.base_dir "$out/$name"
}

# name, expected seconds, levers: both sides of scripts/bench_vs_bare.py with them.
vs_bare() {
  local name=$1 expected_s=$2
  shift 2
  part "$name" "$expected_s" "$python" scripts/bench_vs_bare.py --engine "$engine" --dtype bfloat16 \
    --model_id black-forest-labs/FLUX.1-dev --whole_text_encoder --side_px 1024 --steps 20 --starts 1 --pairs 8 "$@" \
    --json "$out/$name.json"
}

# GiB that a part needs, its name: true where each GPU has them; else the report gets the reason.
fits() {
  local needed_gib=$1 name=$2
  if ((listing)); then return; fi
  rm -f "$out/$name.left_out"
  if ((${memory_mib:-0} >= needed_gib * 1024)); then return; fi
  echo "needs $needed_gib GiB, and the GPU has ${memory_mib:-an unknown number of} MiB" |
    tee "$out/$name.left_out" | sed "s/^/== $name left out: /"
  return 1
}

# FlashAttention 3 of the hub: Hopper, and the package that fetches it.
offers_fa3_hub() {
  [[ $gpu_names =~ (H100|H200|GH200|H800|H20) ]] &&
    "$python" -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("kernels") is None)'
}

# name, expected seconds, command: list it, or run it unless it is done or would take too long.
part() {
  local name=$1 expected_s=$2 own_limit_s=$((2 * $2 + 60)) code
  shift 2
  if ((listing)); then
    echo "$name: $*"
  elif [ -e "$out/$name.done" ]; then
    return
  elif ((SECONDS + expected_s > limit_s)); then
    left+=("$name")
  else
    echo "== $name"
    timeout --kill-after=30 "$own_limit_s" "$@" 2>&1 | tee "$out/$name.log"
    code=${PIPESTATUS[0]}
    if ((code == 0)); then
      touch "$out/$name.done"
    elif ((code == 124 || code == 137)); then
      failed+=("$name (ended at its limit of $own_limit_s s)")
    else
      failed+=("$name")
    fi
  fi
}

listing=0
case "$mode" in
--list)
  listing=1
  all_parts
  exit
  ;;
--dry_run)
  listing=1
  all_parts | "$python" scripts/gpu_acceptance_plan.py
  exit
  ;;
"") ;;
*)
  echo "gpu_acceptance: there is no option $mode; use --list, --dry_run or none" >&2
  exit 2
  ;;
esac
if ((gpus == 0)); then
  echo "gpu_acceptance: no NVIDIA GPU is visible here (nvidia-smi -L); run it on a machine that has one" >&2
  exit 2
fi
mkdir -p "$out"
all_parts
"$python" scripts/gpu_acceptance_report.py "$out" || failed+=(report)
if ((${#failed[@]})); then
  printf 'gpu_acceptance: failed: %s\n' "${failed[@]}" >&2
  exit 1
fi
if ((${#left[@]})); then
  echo "gpu_acceptance: parts are left that would end after the limit of $limit_s s; call it again: ${left[*]}" >&2
  exit 3
fi
