"""Readers of energy: each GPU that takes part is read once, by one process of its node."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlenergy.diffusion.environment.gpus import Gpu
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.measure.energy.counters import Counters
from mlenergy.diffusion.measure.energy.curves import Curve, Track
from mlenergy.diffusion.measure.energy.sampler import Sampler
from mlenergy.diffusion.measure.samples import Sampling

NO_GPU = "no GPU takes part in this run"
MARGIN_S = 0.3  # a few periods of the slowest counter known (0.1 s)


@dataclass(frozen=True)
class RankView:
    """One rank's view of its node.

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
        """Name and machine of the node: ranks with the same place share their GPUs."""
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
    """An id that differs between machines of the same host name."""
    path = Path("/proc/sys/kernel/random/boot_id")
    return path.read_text().strip() if path.exists() else ""


def _unreadable(views: Sequence[RankView]) -> str | None:
    """The reason for which a GPU that a rank uses cannot be read, None where all can."""
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


class NodeReader:
    """One process's reading of its node: counters around every window, the sampling process beside them.

    Args:
        node: the name that its readings carry.
        gpus: devices to read; none where it reads the CPUs alone.
        with_cpus: True to read the node's CPU packages and DRAM, too.
        sample_period_s: of power, temperature, clock and event reasons. After ``stop_sampling`` it is the
            real one, wider where reading all GPUs takes long; ``sampling`` has both.
    """

    def __init__(self, node: str, gpus: Sequence[Gpu], with_cpus: bool, sample_period_s: float) -> None:
        self.node = node
        self.gpus = tuple(gpus)
        self.with_cpus = with_cpus
        self.sample_period_s = sample_period_s
        self.counters = Counters(node, gpus, with_cpus)
        self.tracks: dict[str, Track] = {gpu.uuid: Track() for gpu in gpus}
        self.sampling: Sampling | None = None  # None where nothing was sampled
        self.sampler_failure: str | None = None  # why there are no samples
        self._sampler: Sampler | None = None

    def start_sampling(self) -> None:
        """Start the sampling process, just before the first window."""
        if not self.gpus:
            return
        sampler = Sampler([gpu.index for gpu in self.gpus], self.sample_period_s)
        self.sampler_failure = sampler.start()
        if self.sampler_failure is None:
            self._sampler = sampler
            self._wait_a_margin(sampler)

    def stop_sampling(self) -> None:
        """End the sampling process and take its tracks, just after the last window."""
        if self._sampler is None:
            return
        sampler, self._sampler = self._sampler, None
        self._wait_a_margin(sampler)
        tracks = sampler.stop()
        self.tracks = {gpu.uuid: tracks.get(gpu.index, Track()) for gpu in self.gpus}
        self.sampling = Sampling(
            self.sample_period_s, sampler.period_s, sampler.poll_s, sampler.sample_read_s, len(self.gpus)
        )
        self.sample_period_s = sampler.period_s

    def close(self) -> None:
        """End the sampling process, should it still run: a run that failed leaves none behind."""
        if self._sampler is not None:
            self._sampler.kill()
            self._sampler = None

    def counter_period_s(self, gpu: Gpu) -> float | None:
        """The counter's own period; None where the GPU has none, or where too few moves show it."""
        return self.tracks[gpu.uuid].counter_period_s if gpu in self.counters.counted else None

    def energy_curve(self, gpu: Gpu) -> Curve | None:
        """Growth of the GPU's energy: by its counter, or by its sampled power where it has none."""
        track = self.tracks[gpu.uuid]
        return track.counter_curve if gpu in self.counters.counted else track.power_curve

    def _wait_a_margin(self, sampler: Sampler) -> None:
        # A curve must begin before the first window and end after the last, or it does not cover them.
        time.sleep(max(MARGIN_S, 2 * self.sample_period_s, 2 * sampler.poll_s))
