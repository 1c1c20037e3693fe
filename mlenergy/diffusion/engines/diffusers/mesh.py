"""The mesh of ranks: data-parallel groups, guidance halves, sequence shards, slices of weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from mlenergy.diffusion.config import parallelism
from mlenergy.diffusion.config.parallelism import Parallelism

# Outermost first, but for PipeFusion, which diffusers does not have.
AXES = tuple(axis for axis in parallelism.AXES if axis != "pipefusion")


@dataclass(frozen=True)
class MeshPosition:
    """This rank's coordinates; mesh is None where it is alone."""

    mesh: DeviceMesh | None
    data_rank: int = 0
    is_output_rank: bool = True  # returns the images of its data-parallel group; the others hold copies

    def group(self, axis: str) -> dist.ProcessGroup:
        """The ranks that differ from this one along `axis` only."""
        assert self.mesh is not None
        return self.mesh.get_group(axis)


# Kept: torch holds on to every mesh that was ever made, and each of its groups has threads.
_meshes: dict[tuple[str, tuple[int, ...]], DeviceMesh] = {}


def position_in_mesh(parallel: Parallelism, device: torch.device) -> MeshPosition:
    """Form the groups of these degrees, or take those of the same degrees; every rank calls this alike."""
    if parallel.world_size == 1:
        return MeshPosition(None)
    shape = tuple(getattr(parallel, axis) for axis in AXES)
    mesh = _meshes.get((device.type, shape)) or init_device_mesh(device.type, shape, mesh_dim_names=AXES)
    _meshes[device.type, shape] = mesh
    ranks = {axis: mesh.get_local_rank(axis) for axis in AXES}
    return MeshPosition(mesh, ranks["data"], is_output_rank=not any(ranks[axis] for axis in AXES[1:]))
