"""Who reads which GPU: each once, by one process of its node, and only GPUs that take part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlenergy.diffusion.environment.gpus import Gpu
from mlenergy.diffusion.errors import UserError

NO_GPU = "no GPU takes part in this run"


@dataclass(frozen=True)
class RankView:
    """What one rank sees of its node.

    uuid: of the GPU it computes on; None where it uses none, and then ``reason`` may say why
    that GPU cannot be read. gpus: what the driver shows this process.
    """

    rank: int
    node: str
    machine: str  # two machines of one host name stay two nodes
    uuid: str | None
    reason: str | None
    gpus: tuple[Gpu, ...]
    gpu_reason: str | None = None

    @property
    def place(self) -> tuple[str, str]:
        """What makes two ranks neighbours."""
        return self.node, self.machine


@dataclass(frozen=True)
class ReaderAssignment:
    """rank -> GPUs that it reads; the first rank of each node; or why nothing is read."""

    gpus: Mapping[int, tuple[Gpu, ...]]
    first_ranks: tuple[int, ...]
    reason: str | None = None


def assign(views: Sequence[RankView], energy_gpus: Sequence[str] = ()) -> ReaderAssignment:
    """One reader for every GPU that takes part.

    A GPU is read by the lowest rank of its node that the driver shows it to: mostly one
    rank a node; more only where a scheduler hides each rank's GPU from the others.

    Args:
        views: of all ranks, in rank order.
        energy_gpus: devices to read instead of those that ranks use: nvidia-smi's indices
            (of every node), UUIDs, or "all".

    Raises:
        UserError: a named device is on no node.
    """
    first_ranks = tuple(
        view.rank for view in views if view.rank == min(v.rank for v in views if v.place == view.place)
    )
    if energy_gpus:
        return ReaderAssignment(_readers(views, _named(views, energy_gpus)), first_ranks)
    used = [view for view in views if view.uuid is not None]
    reason = next((view.reason for view in views if view.reason), None) or _unreadable(views)
    if reason is None and not used:
        reason = NO_GPU
    if reason is not None:
        return ReaderAssignment({}, first_ranks, reason)
    return ReaderAssignment(_readers(views, {(view.place, str(view.uuid)) for view in used}), first_ranks)


def machine_id() -> str:
    """What tells this machine from another of the same host name."""
    path = Path("/proc/sys/kernel/random/boot_id")
    return path.read_text().strip() if path.exists() else ""


def _unreadable(views: Sequence[RankView]) -> str | None:
    """Why a GPU that a rank uses cannot be read, None where all can."""
    for view in views:
        if view.uuid is None:
            continue
        shown = {gpu.uuid: gpu for other in views if other.place == view.place for gpu in other.gpus}
        gpu = shown.get(str(view.uuid))
        if not shown:
            return view.gpu_reason or f"the driver shows no GPU on {view.node}"
        if gpu is None or gpu.mig:
            return (
                f"rank {view.rank} runs on a MIG slice or on a GPU that the driver does not show "
                f"({view.uuid}); a slice has no energy counter: name whole GPUs by --energy_gpus"
            )
    return None


def _named(views: Sequence[RankView], names: Sequence[str]) -> set[tuple[tuple[str, str], str]]:
    """(node, UUID) of every named device."""
    chosen: set[tuple[tuple[str, str], str]] = set()
    for name in names:
        fitting = {(view.place, gpu.uuid) for view in views for gpu in view.gpus if _is_called(gpu, name)}
        if not fitting:
            there = sorted({f"{gpu.index} ({gpu.uuid})" for view in views for gpu in view.gpus})
            shown = ", ".join(there) or next((v.gpu_reason for v in views if v.gpu_reason), None) or "none"
            raise UserError(f"--energy_gpus {name} is no GPU of this run's nodes; there are: {shown}")
        chosen |= fitting
    return chosen


def _is_called(gpu: Gpu, name: str) -> bool:
    return name in ("all", gpu.uuid) or name == str(gpu.index)


def _readers(
    views: Sequence[RankView], wanted: set[tuple[tuple[str, str], str]]
) -> dict[int, tuple[Gpu, ...]]:
    """rank -> GPUs; a UUID that two nodes show (two containers on one machine) counts once."""
    readers: dict[int, tuple[Gpu, ...]] = {}
    taken: set[str] = set()
    for view in sorted(views, key=lambda view: view.rank):
        mine = [gpu for gpu in view.gpus if (view.place, gpu.uuid) in wanted and gpu.uuid not in taken]
        if mine:
            readers[view.rank] = tuple(mine)
            taken |= {gpu.uuid for gpu in mine}
    return readers
