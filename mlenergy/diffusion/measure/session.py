"""A whole measurement: warm-up, windows, and everything gathered on global rank 0."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from mlenergy.diffusion.engine import Batch
from mlenergy.diffusion.measure.energy.idle import above_idle_j
from mlenergy.diffusion.measure.energy.merge import EnergyReport
from mlenergy.diffusion.measure.energy.meter import Meter
from mlenergy.diffusion.measure.memory import MemoryWatch
from mlenergy.diffusion.measure.outputs import HostImages, Pixels, collect, to_host
from mlenergy.diffusion.measure.samples import (
    Iteration,
    Measurement,
    MeasurementWarning,
    RankMemory,
    StageEnergy,
)
from mlenergy.diffusion.measure.stages import StageProbe, StageSpans, stage_times
from mlenergy.diffusion.measure.warnings import run_warnings
from mlenergy.diffusion.measure.window import Generate, NoReader, Window, run_window

if TYPE_CHECKING:
    import torch

    from mlenergy.diffusion.distributed.cluster import Cluster

# Told after every call: "warmup" or "measured", its index from 0, its seconds on this rank.
OnIteration = Callable[[str, int, float], None]


class Enough(Protocol):
    """Decides after each window, on rank 0, whether more are needed."""

    def is_met(self, durations_s: Sequence[float]) -> bool:
        """Whether these windows are enough."""


@dataclass(frozen=True)
class _Share:
    """What one rank tells the others when all windows are done."""

    holds_images: bool
    finite: bool
    spans: tuple[StageSpans | None, ...]
    postprocess_s: tuple[float, ...]
    memory: RankMemory

    @property
    def busy_s(self) -> float:
        """Seconds that this rank's stages take over all windows."""
        return sum(span.stage_s for span in self.spans if span is not None)


def measure(
    generate: Generate,
    warmup_batches: Sequence[Batch],
    batches: Sequence[Batch],
    meter: Meter,
    cluster: Cluster,
    device: torch.device,
    probe: StageProbe | None = None,
    on_iteration: OnIteration | None = None,
    *,
    components: Mapping[str, torch.nn.Module] | None = None,
    keep_images: bool = True,
    stop_rule: Enough | None = None,
) -> tuple[Measurement | None, list[Pixels]]:
    """Warm up, measure every batch in a window of its own, and gather. Every rank calls it.

    Args:
        generate: runs one batch on this rank; called with exactly the measured shape in warm-up.
        warmup_batches: one unmeasured call each, through the same code as the windows.
        batches: one window each: exactly as many as given, or fewer where ``stop_rule`` says enough.
        meter: the energy meter; it samples from just before the first window to after the last.
        cluster: ranks, barrier, gather.
        device: that ``generate`` works on.
        probe: hooks on the components; None: no stage times. Its hooks come off at the end.
        on_iteration: told after each call, outside of the windows.
        components: whose parameters are counted; name -> module.
        keep_images: collect the pixels to rank 0. The work inside a window is the same either way.
        stop_rule: decided by rank 0's durations, after each window.

    Returns:
        On rank 0 the measurement, and each window's images as uint8 (n, height, width, 3) in
        the batch's order (empty without ``keep_images``); elsewhere None and an empty list.
    """
    session = _Session(
        generate, meter, cluster, device, probe, on_iteration or _silent, keep_images, stop_rule
    )
    with ExitStack() as stack:
        stack.callback(meter.close)
        if probe is not None:
            stack.enter_context(probe)
        warmup_s = session.warm_up(warmup_batches)
        meter.start()
        session.run(batches)
        meter.stop()
    return session.gather(batches, warmup_s, components or {}), session.pixels


class _Session:
    """One rank's way through the windows."""

    def __init__(
        self,
        generate: Generate,
        meter: Meter,
        cluster: Cluster,
        device: torch.device,
        probe: StageProbe | None,
        on_iteration: OnIteration,
        keep_images: bool,
        stop_rule: Enough | None,
    ) -> None:
        self.pixels: list[Pixels] = []
        self._generate = generate
        self._meter = meter
        self._cluster = cluster
        self._device = device
        self._probe = probe
        self._on_iteration = on_iteration
        self._keep_images = keep_images
        self._stop_rule = stop_rule
        self._memory = MemoryWatch(device)
        self._durations_s: list[float] = []
        self._images: list[HostImages] = []  # without their pixels
        self._spans: list[StageSpans | None] = []

    def warm_up(self, batches: Sequence[Batch]) -> tuple[float, ...]:
        """Unmeasured calls of the measured shape; their seconds."""
        durations_s = []
        for index, batch in enumerate(batches):
            window = run_window(self._generate, batch, NoReader(), self._cluster, self._device)
            durations_s.append(window.duration_s)
            self._on_iteration("warmup", index, window.duration_s)
        return tuple(durations_s)

    def run(self, batches: Sequence[Batch]) -> None:
        """One window a batch."""
        if self._probe is not None:
            self._probe.watch(self._memory.on_stage)
        for index, batch in enumerate(batches):
            self._memory.begin_window()
            window = run_window(self._generate, batch, self._meter, self._cluster, self._device, self._probe)
            self._memory.end_window()
            self._keep(window)
            self._on_iteration("measured", index, window.duration_s)
            if self._is_enough():
                return

    def gather(
        self, batches: Sequence[Batch], warmup_s: tuple[float, ...], components: Mapping[str, torch.nn.Module]
    ) -> Measurement | None:
        """All ranks' figures on rank 0, None elsewhere."""
        own = _Share(
            holds_images=any(images.holds for images in self._images),
            finite=all(images.finite for images in self._images),
            spans=tuple(self._spans),
            postprocess_s=tuple(images.postprocess_s for images in self._images),
            memory=self._memory.report(self._cluster.rank.rank, components),
        )
        shares: list[_Share] = self._cluster.all_gather_object(own)
        # Of the ranks that hold images, the one that was busy longest tells the stages.
        holder = max(shares, key=lambda share: (share.holds_images, share.busy_s))
        energy = self._meter.collect(holder.spans)
        if energy is None:
            return None
        iterations = tuple(
            _iteration(index, len(batches[index].prompts), duration_s, energy, self._meter, holder)
            for index, duration_s in enumerate(self._durations_s)
        )
        return Measurement(
            first_call_s=warmup_s[0] if warmup_s else None,
            warmup_s=warmup_s,
            iterations=iterations,
            memory=tuple(share.memory for share in shares),
            warnings=(*energy.warnings, *run_warnings(iterations), *_broken_images(shares)),
            idle_power_w=dict(self._meter.idle_power_w),
            stage_energy=tuple(self._with_steps(stage) for stage in energy.stages),
            stage_energy_reason=energy.stage_reason,
            counter_period_s=energy.counter_period_s,
            timeline=energy.timeline,
            power_limit_w=dict(self._meter.power_limit_w),
        )

    def _keep(self, window: Window) -> None:
        """After a window has closed: stage times, pixels to the host, pixels to rank 0."""
        images = to_host(window.generated)
        self._durations_s.append(window.duration_s)
        self._spans.append(self._probe.spans() if self._probe is not None else None)
        if self._keep_images:
            pixels = collect(images, self._cluster)
            if pixels is not None:
                self.pixels.append(pixels)
        self._images.append(images.without_pixels())

    def _with_steps(self, stage: StageEnergy) -> StageEnergy:
        """The denoising stage's joules of one step beside those of the stage."""
        if stage.stage != "denoise" or self._probe is None:
            return stage
        return replace(stage, energy_per_step_j=stage.energy_j / self._probe.steps)

    def _is_enough(self) -> bool:
        """Rank 0's answer, on every rank, so that all stop at the same window."""
        if self._stop_rule is None:
            return False
        return bool(self._cluster.broadcast_object(self._stop_rule.is_met(self._durations_s)))


def _iteration(
    index: int, images: int, duration_s: float, energy: EnergyReport, meter: Meter, holder: _Share
) -> Iteration:
    spans, reading = holder.spans[index], energy.readings[index]
    return Iteration(
        index=index,
        images=images,
        duration_s=duration_s,
        energy=reading,
        stages=None if spans is None else stage_times(spans, duration_s, holder.postprocess_s[index]),
        energy_above_idle_j=above_idle_j(reading, meter.idle_power_w, duration_s),
    )


def _broken_images(shares: Sequence[_Share]) -> list[MeasurementWarning]:
    if all(share.finite for share in shares):
        return []
    text = "images hold NaN or infinity: a broken computation was measured; try another --dtype"
    return [MeasurementWarning("images_not_finite", text)]


def _silent(_kind: str, _index: int, _seconds: float) -> None:
    """Nobody listens."""
