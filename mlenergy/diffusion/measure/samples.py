"""The frozen figures that measuring hands on. Unknown is None with a reason, never 0."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from mlenergy.diffusion.models.spec import STAGES, Stage

EnergySource = Literal["nvml_counter", "sampled_power", "none"]
WindowPart = Stage | Literal["other"]  # "other": what remains of a window beside its stages
WINDOW_PARTS: tuple[WindowPart, ...] = (*STAGES, "other")


def sum_or_none(values: Iterable[float | None]) -> float | None:
    """The sum, or None where a part is unknown: half a sum would look like a whole one."""
    known = list(values)
    if not known or None in known:
        return None
    return sum(value for value in known if value is not None)


@dataclass(frozen=True)
class StageTimes:
    """Seconds of one iteration's stages on the rank that holds the images."""

    text_encode_s: float
    denoise_s: float
    denoise_step_s: tuple[float, ...] | None  # None with step_reason: the calls do not fit the steps
    vae_decode_s: float
    other_s: float  # the window less the stages: schedulers' set-up, noise, barriers
    postprocess_s: float  # device tensor -> uint8 on the host; outside the window
    step_reason: str | None = None


@dataclass(frozen=True)
class DenoiserWork:
    """Calls of the denoiser in one window on one rank, as its hooks saw them."""

    calls: int
    rows: int  # of its batch, over all calls
    elements: int  # of the latents that it was given, over all calls
    text_tokens: int | None = (
        None  # of the texts that it was given, over all rows of all calls; None: none seen
    )


@dataclass(frozen=True)
class GpuEnergy:
    """Joules of one device over one window."""

    node: str
    uuid: str
    name: str
    energy_j: float
    source: EnergySource = "nvml_counter"
    sampled_energy_j: float | None = None  # integral of the sampled power, kept as a cross-check


@dataclass(frozen=True)
class NodeEnergy:
    """One node's share of a window. CPU and DRAM joules stand beside the GPUs', never in them."""

    node: str
    gpu_energy_j: float | None
    cpu_package_j: float | None = None
    dram_j: float | None = None
    cpu_reason: str | None = None  # why there is no CPU energy


@dataclass(frozen=True)
class WindowEnergy:
    """Energy of one window as the run sees it: every device that takes part, on all nodes."""

    source: EnergySource
    reason: str | None  # why there is none, where source is "none"
    gpus: tuple[GpuEnergy, ...] = ()
    nodes: tuple[NodeEnergy, ...] = ()
    marks: tuple[str, ...] = ()  # codes of the warnings that this window earned
    sample_period_s: float | None = None  # of the power samples, where source is "sampled_power"

    @property
    def gpu_energy_j(self) -> float | None:
        """Sum over the GPUs in joules, None where no counter was read."""
        return sum(g.energy_j for g in self.gpus) if self.source != "none" else None

    @property
    def cpu_package_j(self) -> float | None:
        """Sum over the nodes' CPU packages in joules, None where one node's is unknown."""
        return sum_or_none(node.cpu_package_j for node in self.nodes)

    @property
    def dram_j(self) -> float | None:
        """Sum over the nodes' DRAM in joules, None where one node's is unknown."""
        return sum_or_none(node.dram_j for node in self.nodes)

    def above_idle_j(self, idle_power_w: Mapping[str, float], duration_s: float) -> float | None:
        """GPU joules less what these GPUs draw idle in that time; None where either is unknown."""
        total_j = self.gpu_energy_j
        if total_j is None or any(gpu.uuid not in idle_power_w for gpu in self.gpus):
            return None
        return total_j - sum(idle_power_w[gpu.uuid] * duration_s for gpu in self.gpus)


@dataclass(frozen=True)
class StageEnergy:
    """Joules of one stage, mean over the measured windows, all GPUs that take part.

    A stage is what the rank that holds the images is doing; the other GPUs' joules of
    the same time count too, for they are what that time costs.
    """

    stage: WindowPart
    energy_j: float
    per_gpu_j: dict[str, float]  # uuid -> joules
    aggregated: bool  # too short for the counter: solved from all windows together
    energy_per_step_j: float | None = None  # of the denoising stage: its joules ÷ steps


@dataclass(frozen=True)
class RankMemory:
    """Bytes on one rank; None with a reason where the device does not account for them."""

    rank: int
    peak_allocated_bytes: int | None
    peak_reserved_bytes: int | None
    driver_used_bytes: int | None
    host_rss_peak_bytes: int
    parameter_bytes: dict[str, int]  # component -> bytes on this rank
    parameter_count: dict[str, int]
    peak_stage: WindowPart | None = None
    reason: str | None = None
    stage_peak_bytes: dict[WindowPart, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Iteration:
    """One measured call: what its window gave."""

    index: int
    images: int
    duration_s: float
    energy: WindowEnergy
    stages: StageTimes | None
    energy_above_idle_j: float | None = None
    denoiser: tuple[DenoiserWork | None, ...] = ()  # of each rank; None where no call was seen


@dataclass(frozen=True)
class MeasurementWarning:
    """A reason to doubt a number; docs/measuring.md explains each code."""

    code: str
    message: str


@dataclass(frozen=True)
class Sampling:
    """The sampling process's periods: asked for and real, which is wider where reading all GPUs takes long.

    counter_poll_s: between two reads of the energy counters, which show when they move. read_s: the median
    time that a sample of all GPUs took, None where the process was lost. gpus: how many that are. Of several
    nodes the largest of each.
    """

    requested_period_s: float
    period_s: float
    counter_poll_s: float
    read_s: float | None
    gpus: int


@dataclass(frozen=True)
class Timeline:
    """Samples of every GPU that takes part, from just before the first window to just after the last.

    All columns have one length; None where the driver gives no such figure.
    """

    node: list[str]
    uuid: list[str]
    time_s: list[float]  # since the first window's begin on that node
    power_w: list[float | None]
    temperature_c: list[int | None]
    sm_clock_mhz: list[int | None]
    event_reasons: list[int | None]  # NVML's bit mask: why clocks are held down
    window: list[int | None]  # index of the measured window that the sample lies in
    period_s: float


@dataclass(frozen=True)
class Measurement:
    """All figures of one run, gathered on global rank 0."""

    first_call_s: float | None  # the first warm-up call; None where warmup_iters is 0
    warmup_s: tuple[float, ...]
    iterations: tuple[Iteration, ...]
    memory: tuple[RankMemory, ...]  # one a rank, in rank order
    warnings: tuple[MeasurementWarning, ...] = ()
    idle_power_w: dict[str, float] = field(default_factory=dict)  # GPU uuid -> mean watts
    stage_energy: tuple[StageEnergy, ...] = ()
    stage_energy_reason: str | None = None  # why there is none
    counter_period_s: dict[str, float] = field(default_factory=dict)  # GPU uuid -> seconds
    timeline: Timeline | None = None
    sampling: Sampling | None = None  # None where nothing was sampled
    power_limit_w: dict[str, float] = field(default_factory=dict)  # GPU uuid -> limit of this run
