"""xfuser's process groups: formed from the plan's degrees, reused, dissolved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch.distributed as dist

from mlenergy.diffusion.config.parallelism import Parallelism
from mlenergy.diffusion.distributed.cluster import Rank
from mlenergy.diffusion.environment.device import DeviceType

BACKENDS: dict[DeviceType, str] = {"cpu": "gloo", "cuda": "nccl"}


@dataclass
class _Formed:
    """Degrees of the groups that this process has formed: xfuser keeps the groups in module globals."""

    shape: tuple[int | bool, ...] | None = None


_formed = _Formed()


def form_groups(parallel: Parallelism, rank: Rank, device: DeviceType) -> None:
    """Form xfuser's groups for these degrees; those of the same degrees are kept.

    The default process group is the cluster room's and exists already, also for one process.
    Every rank has to call this with the same degrees.
    """
    shape = _shape(parallel)
    if _formed.shape == shape:
        return
    dissolve_groups()
    _form(parallel, rank, BACKENDS[device])
    _formed.shape = shape


def dissolve_groups() -> None:
    """Destroy xfuser's groups, those that its own destroy function forgets too."""
    if _formed.shape is None:
        return
    from xfuser.core.distributed import parallel_state

    extra = _forgotten_groups(parallel_state)
    parallel_state.destroy_model_parallel()
    parallel_state._DIT = None
    if parallel_state._WORLD is not None:
        parallel_state._WORLD.destroy()
        parallel_state._WORLD = None
    for group in extra:
        dist.destroy_process_group(group)
    _formed.shape = None


def _shape(parallel: Parallelism) -> tuple[int | bool, ...]:
    """All that decides which ranks talk to each other."""
    return (
        *(parallel.data, parallel.cfg, parallel.pipefusion, parallel.ring, parallel.ulysses),
        *(parallel.tensor, parallel.parallel_vae),
    )


def _form(parallel: Parallelism, rank: Rank, backend: str) -> None:
    from xfuser.core.distributed import init_distributed_environment, initialize_model_parallel

    init_distributed_environment(
        world_size=rank.world_size, rank=rank.rank, local_rank=rank.local_rank, backend=backend
    )
    initialize_model_parallel(
        data_parallel_degree=parallel.data,
        classifier_free_guidance_degree=parallel.cfg,
        sequence_parallel_degree=parallel.sequence,
        ulysses_degree=parallel.ulysses,
        ring_degree=parallel.ring,
        tensor_parallel_degree=parallel.tensor,
        pipeline_parallel_degree=parallel.pipefusion,
        use_parallel_vae=parallel.parallel_vae,
        backend=backend,
    )


def _forgotten_groups(parallel_state: Any) -> list[Any]:
    """Groups that ``destroy_model_parallel`` loses sight of without destroying them."""
    from yunchang.globals import PROCESS_GROUP

    pipeline = parallel_state._PP
    groups = [parallel_state._DIT, PROCESS_GROUP.ULYSSES_PG, PROCESS_GROUP.RING_PG]
    groups.append(pipeline.skip_device_group)
    if pipeline.world_size == 2:  # xfuser then keeps a group for each direction, and destroys one
        groups += [pipeline.device_groups[1], pipeline.cpu_groups[1]]
    return [group for group in groups if group is not None]
