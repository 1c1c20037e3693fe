#!/usr/bin/env bash
# Several machines without a scheduler: run the same command on each of them, HEAD being one of them.
#   HEAD=gpu01:29500 NNODES=2 NPROC_PER_NODE=8 launch/hosts.sh --ulysses_degree 8 --ring_degree 2 workload:t2i …
set -euo pipefail
: "${HEAD:?set HEAD to HOST:PORT, one of the machines and a free port on it}"
: "${NNODES:?set NNODES to the number of machines}"
: "${NPROC_PER_NODE:?set NPROC_PER_NODE to the processes on each machine, one for each GPU}"

# Every machine must reach the others by hostname. Where a hostname resolves to 127.0.0.1, or with several
# networks, name the interface (`ip -brief address` lists them):
# export GLOO_SOCKET_IFNAME=eth0   # messages between ranks
# export NCCL_SOCKET_IFNAME=eth0   # how NCCL's ranks find each other; data takes InfiniBand where there is one
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"

# torchrun with a light start: it answers signals while torch is still being imported.
exec python3 -m mlenergy.diffusion.executors.torchrun \
  --nnodes="$NNODES" --nproc_per_node="$NPROC_PER_NODE" \
  --rdzv_id="mlenergy-$HEAD" --rdzv_backend=c10d --rdzv_endpoint="$HEAD" -- "$@"
