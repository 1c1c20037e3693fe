#!/usr/bin/env bash
# One machine: a process for each GPU that CUDA_VISIBLE_DEVICES leaves visible, or one on a CPU.
#   launch/local.sh --ulysses_degree 2 --ring_degree 2 workload:t2i --workload.model_id black-forest-labs/FLUX.1-dev
#   NPROC_PER_NODE=2 launch/local.sh --ulysses_degree 2 workload:t2i --workload.model_id tiny/flux
set -euo pipefail

count_gpus() {
  if [[ -n ${CUDA_VISIBLE_DEVICES:-} ]]; then
    tr ',' '\n' <<< "$CUDA_VISIBLE_DEVICES" | wc -l
  else
    { nvidia-smi --list-gpus 2> /dev/null || echo "one process on the CPU"; } | wc -l
  fi
}

processes="${NPROC_PER_NODE:-$(count_gpus)}"
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" # torchrun would set the same, with a warning

# torchrun with a light start, and an address rather than the hostname, which not every machine can resolve.
exec python3 -m mlenergy.diffusion.executors.torchrun \
  --standalone --local_addr=127.0.0.1 --nproc_per_node="$processes" -- "$@"
