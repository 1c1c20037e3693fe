"""Where this rank stands among data-parallel groups, guidance halves and sequence shards."""

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
class Place:
    """This rank's coordinates; mesh is None where it is alone."""

    mesh: DeviceMesh | None
    data_rank: int = 0
    speaks: bool = True  # holds the images of its data-parallel group; the others hold copies

    def rows(self, batch_size: int, groups: int) -> tuple[int, int]:
        """First row, and the one after the last, of this rank's data-parallel group."""
        rows = batch_size // groups
        return self.data_rank * rows, (self.data_rank + 1) * rows

    def group(self, axis: str) -> dist.ProcessGroup:
        """The ranks that differ from this one along `axis` only."""
        assert self.mesh is not None
        return self.mesh.get_group(axis)


# Kept: torch holds on to every mesh that was ever made, and each of its groups has threads.
_meshes: dict[tuple[str, tuple[int, ...]], DeviceMesh] = {}


def find_place(parallel: Parallelism, device: torch.device) -> Place:
    """Form the groups of these degrees, or take those of the same degrees; every rank calls this alike."""
    if parallel.world_size == 1:
        return Place(None)
    shape = tuple(getattr(parallel, axis) for axis in AXES)
    mesh = _meshes.get((device.type, shape)) or init_device_mesh(device.type, shape, mesh_dim_names=AXES)
    _meshes[device.type, shape] = mesh
    ranks = {axis: mesh.get_local_rank(axis) for axis in AXES}
    return Place(mesh, ranks["data"], speaks=not any(ranks[axis] for axis in AXES[1:]))


def forget_places() -> None:
    """Form new groups the next time: a message may still be under way in the old ones."""
    _meshes.clear()
