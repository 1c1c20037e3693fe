"""The energy meter of a run: one reader for every GPU that takes part, on whatever node."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from mlenergy.diffusion.distributed.cluster import Rank
from mlenergy.diffusion.environment.gpus import Gpu, list_gpus, used_uuid
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.measure.energy.readers import (
    NodeReader,
    RankView,
    ReaderAssignment,
    assign,
    machine_id,
)
from mlenergy.diffusion.measure.energy.reports import RunEnergy, merge, report_node
from mlenergy.diffusion.measure.energy.sampler import Sampler
from mlenergy.diffusion.measure.stages import StageSpans

if TYPE_CHECKING:
    import torch


class Collective(Protocol):
    """The part of a cluster that the meter needs."""

    rank: Rank

    def broadcast_object(self, value: Any) -> Any:
        """Rank 0's value, on every rank."""

    def gather_object(self, value: Any) -> list[Any] | None:
        """Every rank's value in rank order on rank 0, None elsewhere."""


@dataclass(frozen=True)
class MeterOptions:
    """Options of reading energy.

    energy_gpus: devices to read instead of those that ranks use (indices, UUIDs, "all").
    sample_period_s: of power, temperature, clock and event reasons.
    idle_s: how long the GPUs' idle power is sampled before the model loads; 0: not at all.
    require_energy: refuse to run where energy cannot be read.
    """

    energy_gpus: tuple[str, ...] = ()
    sample_period_s: float = 0.1
    idle_s: float = 2.0
    require_energy: bool = False


class Meter:
    """One rank's part of the meter: most ranks read nothing, and their begin and end do nothing.

    Call order: ``start``, then ``begin`` and ``end`` around every window, ``stop``,
    ``collect`` (together on all ranks), ``close``.
    """

    def __init__(self, cluster: Collective, reader: NodeReader | None) -> None:
        self._cluster = cluster
        self._reader = reader
        self.reason: str | None = None  # why no GPU energy is read in this run
        self.idle_power_w: dict[str, float] = {}  # GPU uuid -> mean W before the model loaded, rank 0 only
        self.power_limit_w: dict[str, float] = {}  # GPU uuid -> W that power_limit() holds, rank 0 only

    @property
    def gpus(self) -> tuple[Gpu, ...]:
        """The GPUs that this process reads."""
        return self._reader.gpus if self._reader is not None else ()

    def start(self) -> None:
        """Begin sampling, just before the first window."""
        if self._reader is not None and self.reason is None:
            self._reader.start_sampling()

    def begin(self) -> None:
        """Read the counters where a window opens."""
        if self._reader is not None:
            self._reader.counters.begin()

    def end(self) -> None:
        """Read the counters where a window closes."""
        if self._reader is not None:
            self._reader.counters.end()

    def stop(self) -> None:
        """End sampling, just after the last window."""
        if self._reader is not None:
            self._reader.stop_sampling()

    def collect(self, spans: Sequence[StageSpans | None]) -> RunEnergy | None:
        """All nodes' figures on rank 0, None elsewhere; every rank calls it.

        Args:
            spans: of every window, from the rank that holds the images (the same on all ranks).
        """
        own = None if self._reader is None else report_node(self._reader, spans)
        gathered = self._cluster.gather_object(own)
        if gathered is None:
            return None
        return merge([report for report in gathered if report is not None], self.reason, len(spans))

    def close(self) -> None:
        """End what still samples; nothing after ``stop``."""
        if self._reader is not None:
            self._reader.close()


def nothing() -> None:
    """Do nothing."""


def make_meter(
    cluster: Collective,
    device: torch.device,
    options: MeterOptions | None = None,
    meanwhile: Callable[[], None] = nothing,
) -> Meter:
    """The meter for a run in which every rank computes on its ``device``; every rank calls it.

    Call it before the model loads: it samples the idle power there.

    Args:
        cluster: ranks and what they exchange.
        device: of this rank.
        options: of reading energy.
        meanwhile: called once on every rank, where the idle power is sampled during that; it leaves the GPUs
            idle.

    Raises:
        UserError: on every rank: a device named by ``--energy_gpus`` is on no node, or
            ``--require_energy`` was given and energy cannot be read.
    """
    uuid, reason = rank_gpu(device)
    return build_meter(cluster, uuid, reason, options or MeterOptions(), meanwhile)


def build_meter(
    cluster: Collective,
    uuid: str | None,
    reason: str | None,
    options: MeterOptions,
    meanwhile: Callable[[], None] = nothing,
) -> Meter:
    """As ``make_meter``, for a rank whose GPU's UUID is known (None: no GPU; ``reason``: why unreadable)."""
    listed = list_gpus()
    own = RankView(
        rank=cluster.rank.rank,
        node=cluster.rank.hostname,
        machine=machine_id(),
        uuid=uuid,
        reason=reason,
        gpus=listed.gpus,
        gpu_reason=listed.reason,
    )
    assignment = _assign_together(cluster, own, options)
    with_cpus = own.rank in assignment.first_ranks
    mine = assignment.gpus.get(own.rank, ())
    reader = NodeReader(own.node, mine, with_cpus, options.sample_period_s) if mine or with_cpus else None
    meter = Meter(cluster, reader)
    failure = assignment.reason or (reader.counters.reason if reader is not None else None)
    if options.require_energy and failure is None and reader is not None:
        failure = reader.counters.trial()  # a counter that is there may still refuse to be read
    meter.reason = _first(cluster, failure)
    if options.require_energy and meter.reason is not None:
        raise UserError(f"--require_energy was given, but energy cannot be read: {meter.reason}")
    if options.idle_s > 0 and meter.reason is None:
        # No rank leaves the gathering before all have come to it: none loads while another one samples.
        idle = idle_power_w(meter.gpus, options.idle_s, options.sample_period_s, meanwhile)
        meter.idle_power_w = {k: v for part in cluster.gather_object(idle) or () for k, v in part.items()}
    else:
        meanwhile()
    return meter


def idle_power_w(
    gpus: Sequence[Gpu], duration_s: float, period_s: float, meanwhile: Callable[[], None] = nothing
) -> dict[str, float]:
    """Mean power in W of each GPU over ``duration_s``, by UUID; a GPU that gives no power is left out.

    meanwhile: called once, while it is sampled. What it takes longer is not sampled.
    """
    sampler = Sampler([gpu.index for gpu in gpus], period_s) if gpus else None
    if sampler is None or sampler.start() is not None:
        meanwhile()
        return {}
    begin_s = time.monotonic()
    try:
        meanwhile()
        time.sleep(max(0.0, begin_s + duration_s - time.monotonic()))
        tracks = sampler.stop()
    finally:
        sampler.kill()
    means: dict[str, float] = {}
    for gpu in gpus:
        samples = tracks[gpu.index].samples if gpu.index in tracks else []
        powers_w = [
            sample.power_w
            for sample in samples
            if sample.power_w is not None and sample.time_s <= begin_s + duration_s + period_s
        ]
        if powers_w:
            means[gpu.uuid] = statistics.fmean(powers_w)
    return means


def rank_gpu(device: torch.device) -> tuple[str | None, str | None]:
    """UUID of the GPU that a rank computes on, as the driver writes it; or None and the reason."""
    if device.type == "mps":
        return None, "Apple's GPU has no energy counter that this program reads"
    if device.type != "cuda":
        return None, None
    return used_uuid(device), None


def _assign_together(cluster: Collective, own: RankView, options: MeterOptions) -> ReaderAssignment:
    """Rank 0 assigns from all ranks' views; all ranks get the assignment, or the same error."""
    views = cluster.gather_object(own)
    answer: ReaderAssignment | str | None = None
    if views is not None:
        try:
            answer = assign(views, options.energy_gpus)
        except UserError as error:
            answer = str(error)
    answer = cluster.broadcast_object(answer)
    if isinstance(answer, str):
        raise UserError(answer)
    assert isinstance(answer, ReaderAssignment)
    return answer


def _first(cluster: Collective, reason: str | None) -> str | None:
    """The reason of the first rank that has one, on every rank."""
    gathered = cluster.gather_object(reason)
    return cluster.broadcast_object(next((text for text in gathered or () if text), None))  # type: ignore[no-any-return]
