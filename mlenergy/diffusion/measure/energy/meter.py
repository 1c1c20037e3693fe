"""The energy meter of a run: one reader for every GPU that takes part, on whatever node."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from mlenergy.diffusion.distributed.cluster import Rank
from mlenergy.diffusion.environment.gpus import Gpu, list_gpus
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.measure.energy.counters import NodeReader
from mlenergy.diffusion.measure.energy.idle import idle_power_w
from mlenergy.diffusion.measure.energy.merge import EnergyReport, merge
from mlenergy.diffusion.measure.energy.readings import Readings, readings_of
from mlenergy.diffusion.measure.energy.reports import report_node
from mlenergy.diffusion.measure.energy.roles import RankView, ReaderAssignment, assign, machine_id
from mlenergy.diffusion.measure.energy.sampler import Sampler
from mlenergy.diffusion.measure.stages import StageSpans

if TYPE_CHECKING:
    import torch


MARGIN_S = 0.3  # a few periods of the slowest counter known (0.1 s)


class Collective(Protocol):
    """What the meter needs of the cluster."""

    rank: Rank

    def broadcast_object(self, value: Any) -> Any:
        """Rank 0's value, on every rank."""

    def gather_object(self, value: Any) -> list[Any] | None:
        """Every rank's value in rank order on rank 0, None elsewhere."""


@dataclass(frozen=True)
class MeterOptions:
    """How energy is read.

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
    """This rank's part of the meter: most ranks read nothing, and then begin and end cost nothing.

    Call order: ``start``, then ``begin`` and ``end`` around every window, ``stop``,
    ``collect`` (together on all ranks), ``close``.
    """

    def __init__(self, cluster: Collective, reader: NodeReader | None, options: MeterOptions) -> None:
        self._cluster = cluster
        self._reader = reader
        self._options = options
        self._sampler: Sampler | None = None
        self._trouble: str | None = None  # why there is no timeline
        self._readings: Readings | None = None
        self.reason: str | None = None  # why no GPU energy is read in this run
        self.idle_power_w: dict[str, float] = {}  # GPU uuid -> mean W before the model loaded, rank 0 only
        self.power_limit_w: dict[str, float] = {}  # GPU uuid -> W that power_limit() holds, rank 0 only

    @property
    def gpus(self) -> tuple[Gpu, ...]:
        """The GPUs that this process reads."""
        return self._reader.gpus if self._reader is not None else ()

    def start(self) -> None:
        """Begin sampling, just before the first window."""
        if self.gpus and self.reason is None:
            sampler = Sampler([gpu.index for gpu in self.gpus], self._options.sample_period_s)
            self._trouble = sampler.start()
            self._sampler = sampler if self._trouble is None else None
            self._let_counters_move()

    def begin(self) -> None:
        """Read the counters where a window opens."""
        if self._reader is not None:
            self._reader.begin()

    def end(self) -> None:
        """Read the counters where a window closes."""
        if self._reader is not None:
            self._reader.end()

    def stop(self) -> None:
        """End sampling, just after the last window."""
        if self._reader is None:
            return
        self._let_counters_move()
        tracks = self._sampler.stop() if self._sampler is not None else {}
        self._sampler = None
        self._readings = readings_of(
            self._cluster.rank.hostname, self._reader, tracks, self._options.sample_period_s, self._trouble
        )

    def collect(self, spans: Sequence[StageSpans | None]) -> EnergyReport | None:
        """All nodes' figures on rank 0, None elsewhere; every rank calls it.

        Args:
            spans: of every window, from the rank that holds the images (the same on all ranks).
        """
        own = report_node(self._readings, spans) if self._readings is not None else None
        gathered = self._cluster.gather_object(own)
        if gathered is None:
            return None
        return merge([report for report in gathered if report is not None], self.reason, len(spans))

    def _let_counters_move(self) -> None:
        """Sample a little beyond the windows: a curve must begin before the first and end after the last."""
        if self._sampler is not None:
            time.sleep(max(MARGIN_S, 2 * self._options.sample_period_s))

    def close(self) -> None:
        """End the sampling child, should it still run: a run that failed leaves none behind."""
        if self._sampler is not None:
            self._sampler.kill()
            self._sampler = None


def make_meter(cluster: Collective, device: torch.device, options: MeterOptions | None = None) -> Meter:
    """The meter for a run in which every rank computes on its ``device``; every rank calls it.

    Call it before the model loads: it samples the idle power there.

    Raises:
        UserError: on every rank: a device named by ``--energy_gpus`` is on no node, or
            ``--require_energy`` was given and energy cannot be read.
    """
    uuid, reason = rank_gpu(device)
    return build_meter(cluster, uuid, reason, options or MeterOptions())


def build_meter(cluster: Collective, uuid: str | None, reason: str | None, options: MeterOptions) -> Meter:
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
    roles = _assign_together(cluster, own, options)
    with_cpus = own.rank in roles.first_ranks
    mine = roles.gpus.get(own.rank, ())
    reader = NodeReader(mine, with_cpus) if mine or with_cpus else None
    meter = Meter(cluster, reader, options)
    trouble = roles.reason or (reader.reason if reader is not None else None)
    if options.require_energy and trouble is None and reader is not None:
        trouble = reader.trial()  # a counter that is there may still refuse to be read
    meter.reason = _first(cluster, trouble)
    if options.require_energy and meter.reason is not None:
        raise UserError(f"--require_energy was given, but energy cannot be read: {meter.reason}")
    if options.idle_s > 0 and meter.reason is None:
        idle = idle_power_w(meter.gpus, options.idle_s, options.sample_period_s)
        meter.idle_power_w = {k: v for part in cluster.gather_object(idle) or () for k, v in part.items()}
    return meter


def rank_gpu(device: torch.device) -> tuple[str | None, str | None]:
    """UUID of the GPU that a rank computes on, as the driver writes it; or why there is none to read."""
    if device.type == "mps":
        return None, "Apple's GPU has no energy counter that this program reads"
    if device.type != "cuda":
        return None, None
    import torch

    uuid = str(torch.cuda.get_device_properties(device).uuid)
    return (uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}"), None


def _assign_together(cluster: Collective, own: RankView, options: MeterOptions) -> ReaderAssignment:
    """Rank 0 assigns from all ranks' views; all ranks get the roles, or the same error."""
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
    """The first rank's reason that there is, on every rank."""
    gathered = cluster.gather_object(reason)
    return cluster.broadcast_object(next((text for text in gathered or () if text), None))  # type: ignore[no-any-return]
