"""A whole measurement: warm-up, windows, and everything gathered on global rank 0."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from mlenergy.diffusion.engine import Batch
from mlenergy.diffusion.measure.energy.meter import Meter
from mlenergy.diffusion.measure.memory import MemoryWatch
from mlenergy.diffusion.measure.outputs import Pixels, collect, collect_latents, to_host
from mlenergy.diffusion.measure.samples import (
    DenoiserWork,
    Iteration,
    Measurement,
    MeasurementWarning,
    RankMemory,
    StageEnergy,
)
from mlenergy.diffusion.measure.stages import StageProbe, StageSpans, stage_times
from mlenergy.diffusion.measure.steadiness import steadiness_warnings
from mlenergy.diffusion.measure.window import Generate, NoReader, Window, run_window

if TYPE_CHECKING:
    import torch

    from mlenergy.diffusion.distributed.cluster import Cluster

MOST_OTHER = 0.02  # share of the windows that may lie in no stage
# Called after every iteration with "warmup" or "measured", its index from 0, its seconds on this rank.
OnIteration = Callable[[str, int, float], None]


class StopCondition(Protocol):
    """Ends the measuring after a window; rank 0's answer counts."""

    def is_met(self, durations_s: Sequence[float]) -> bool:
        """True where these windows are enough."""


@dataclass(frozen=True)
class Schedule:
    """The batches of one measurement, in order: one call each.

    warmup: unmeasured calls, through the same code as the windows; of exactly the measured shape.
    measured: one window each: exactly as many as given, or fewer where ``stop_rule`` is met.
    stop_rule: asked about rank 0's durations after each window; None: all batches are measured.
    """

    warmup: Sequence[Batch]
    measured: Sequence[Batch]
    stop_rule: StopCondition | None = None


@dataclass(frozen=True)
class Instruments:
    """Everything that is read on this rank in a window, beside the clock.

    meter: energy, and the sampling from just before the first window to just after the last.
    probe: hooks on the components, in place for this measurement; None: no stage times.
    memory: peaks, and bytes of the components' parameters.
    """

    meter: Meter
    probe: StageProbe | None
    memory: MemoryWatch


def measure(
    generate: Generate,
    schedule: Schedule,
    instruments: Instruments,
    cluster: Cluster,
    *,
    on_iteration: OnIteration | None = None,
    keep_outputs: bool = True,
    latents: list[torch.Tensor] | None = None,
) -> tuple[Measurement | None, list[Pixels]]:
    """Warm up, measure every batch in a window of its own, and gather. Every rank calls it.

    Args:
        generate: runs one batch on this rank.
        schedule: the batches, the same on every rank.
        instruments: of this rank; the meter is closed and the probe's hooks are removed at the end.
        cluster: ranks, barrier, gather; its device is the one that ``generate`` works on.
        on_iteration: told after each call, outside of the windows.
        keep_outputs: collect the pixels to rank 0. The work inside a window is the same either way.

        latents: takes the final latents of every output on rank 0, after each window; None: they are left.

    Returns:
        On rank 0 the measurement, and each window's images as uint8 (n, height, width, 3) in
        the batch's order (empty without ``keep_outputs``); elsewhere None and an empty list.
    """
    meter, probe, memory = instruments.meter, instruments.probe, instruments.memory
    report = on_iteration or (lambda _kind, _index, _seconds: None)
    warmup_s: list[float] = []
    windows: list[_RankWindow] = []
    outputs: list[Pixels] = []
    with ExitStack() as stack:
        stack.callback(meter.close)
        if probe is not None:
            stack.enter_context(probe)
            probe.watch(memory.begin_stage)
        for index, batch in enumerate(schedule.warmup):
            warmup_s.append(run_window(generate, batch, NoReader(), cluster, cluster.device).duration_s)
            report("warmup", index, warmup_s[-1])
        meter.start()
        for index, batch in enumerate(schedule.measured):
            memory.begin_window()
            window = run_window(generate, batch, meter, cluster, cluster.device, probe)
            memory.end_window()
            windows.append(_closed(window, probe, cluster, outputs if keep_outputs else None))
            if latents is not None:
                latents += collect_latents(window.generated, cluster) or []
            report("measured", index, window.duration_s)
            if schedule.stop_rule is not None:
                is_met = schedule.stop_rule.is_met([one.duration_s for one in windows])
                # Rank 0's answer, on every rank, so that all stop at the same window.
                if cluster.broadcast_object(is_met):
                    break
        meter.stop()
    own = _RankResult(tuple(windows), memory.report(cluster.rank.rank))
    results: list[_RankResult] = cluster.all_gather_object(own)
    steps = None if probe is None else probe.steps
    return _measurement(schedule, tuple(warmup_s), results, meter, steps), outputs


@dataclass(frozen=True)
class _RankWindow:
    """One window on one rank, without its pixels."""

    duration_s: float
    spans: StageSpans | None
    postprocess_s: float
    holds_output: bool
    finite: bool


@dataclass(frozen=True)
class _RankResult:
    """All that one rank sends to the others when its windows are done."""

    windows: tuple[_RankWindow, ...]
    memory: RankMemory

    @property
    def busy_s(self) -> float:
        """Seconds of this rank's stages over all windows."""
        return sum(window.spans.total_s for window in self.windows if window.spans is not None)


def _closed(
    window: Window, probe: StageProbe | None, cluster: Cluster, outputs: list[Pixels] | None
) -> _RankWindow:
    """The figures of a window that has closed; its pixels go to rank 0's ``outputs``."""
    output = to_host(window.generated)
    if outputs is not None:
        pixels = collect(output, cluster)
        if pixels is not None:
            outputs.append(pixels)
    return _RankWindow(
        duration_s=window.duration_s,
        spans=None if probe is None else probe.spans(),
        postprocess_s=output.postprocess_s,
        holds_output=output.pixels is not None,
        finite=output.finite,
    )


def _measurement(
    schedule: Schedule,
    warmup_s: tuple[float, ...],
    results: Sequence[_RankResult],
    meter: Meter,
    steps: int | None,
) -> Measurement | None:
    """All ranks' figures on rank 0, None elsewhere; every rank calls it."""
    # Of the ranks that hold output, the stages are those of the one that was busy longest.
    staged = max(results, key=lambda one: (any(w.holds_output for w in one.windows), one.busy_s))
    energy = meter.collect([window.spans for window in staged.windows])
    if energy is None:
        return None
    iterations = []
    for index, window in enumerate(results[0].windows):
        spans, postprocess_s = staged.windows[index].spans, staged.windows[index].postprocess_s
        iterations.append(
            Iteration(
                index=index,
                images=len(schedule.measured[index].prompts),
                duration_s=window.duration_s,
                energy=energy.windows[index],
                stages=None if spans is None else stage_times(spans, window.duration_s, postprocess_s),
                energy_above_idle_j=energy.windows[index].above_idle_j(meter.idle_power_w, window.duration_s),
                denoiser=tuple(_work(result.windows[index].spans) for result in results),
            )
        )
    return Measurement(
        first_call_s=warmup_s[0] if warmup_s else None,
        warmup_s=warmup_s,
        iterations=tuple(iterations),
        memory=tuple(result.memory for result in results),
        warnings=(*energy.warnings, *_run_warnings(iterations, results)),
        idle_power_w=dict(meter.idle_power_w),
        stage_energy=tuple(_per_step(stage, steps) for stage in energy.stages),
        stage_energy_reason=energy.stage_reason,
        counter_period_s=energy.counter_period_s,
        timeline=energy.timeline,
        sampling=energy.sampling,
        power_limit_w=dict(meter.power_limit_w),
    )


def _work(spans: StageSpans | None) -> DenoiserWork | None:
    return None if spans is None else spans.work


def _per_step(stage: StageEnergy, steps: int | None) -> StageEnergy:
    """The denoising stage with the joules of one step beside its own; other stages as they are."""
    if stage.stage != "denoise" or steps is None:
        return stage
    return replace(stage, energy_per_step_j=stage.energy_j / steps)


def _run_warnings(
    iterations: Sequence[Iteration], results: Sequence[_RankResult]
) -> list[MeasurementWarning]:
    """Doubts that take all windows together: unsteadiness, time in no stage, unknown steps, broken images."""
    warnings = steadiness_warnings([iteration.duration_s for iteration in iterations])
    timed = [(one.duration_s, one.stages) for one in iterations if one.stages is not None]
    if timed:
        other = sum(stages.other_s for _, stages in timed) / sum(duration_s for duration_s, _ in timed)
        if other > MOST_OTHER:
            text = f"{other:.1%} of the windows lies in no stage"
            warnings.append(
                MeasurementWarning("other_time", f"{text} (set-up of steps, noise, waiting); see other_s")
            )
    reason = next((stages.step_reason for _, stages in timed if stages.step_reason), None)
    if reason is not None:
        warnings.append(MeasurementWarning("steps_unknown", f"no time of single steps: {reason}"))
    if not all(window.finite for result in results for window in result.windows):
        text = "images hold NaN or infinity: a broken computation was measured; try another --dtype"
        warnings.append(MeasurementWarning("images_not_finite", text))
    return warnings
