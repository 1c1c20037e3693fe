"""Cells of the study `mlenergy-v3`, each beside what was published. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.forecast.cards import card_named
from mlenergy.diffusion.results.published import PublishedRun, published_runs
from mlenergy.diffusion.results.record import ResultRecord
from mlenergy.diffusion.studies.content import Gap, Measured, joules_of, seconds_of
from mlenergy.diffusion.studies.mlenergy_v3_options import TASKS, MlEnergyV3Options, Part
from mlenergy.diffusion.studies.outcome import Cell

_DEFAULT_GPU = "H100"  # of which most was published
Key = tuple[str, str, int, int, int]  # model, GPU, batch, Ulysses and ring


@dataclass(frozen=True)
class Pair:
    """One configuration: what was measured here, and what was published.

    Attributes:
        gpu: short name of the one measured here; None without a result.
        beside: GPU of the published figure.
        published: None where nothing was.
    """

    cell: Cell
    gpu: str | None
    beside: str
    published: PublishedRun | None

    @property
    def model(self) -> str:
        """Id of the model that ran."""
        return str(self.cell.option("model_id"))

    @property
    def batch(self) -> int:
        """Images or videos of an iteration."""
        return int(self.cell.option("batch_size"))

    @property
    def ulysses(self) -> int:
        """Ulysses degree."""
        return int(self.cell.option("ulysses_degree"))

    @property
    def ring(self) -> int:
        """Ring degree."""
        return int(self.cell.option("ring_degree"))

    @property
    def gpus(self) -> int:
        """GPUs that share a batch."""
        return self.ulysses * self.ring

    @property
    def size(self) -> str | Gap:
        """Frames, if it is a video, width and height, of what was measured, or else of what was published."""
        known = self._record or self.published
        if known is None:
            return Gap("neither measured nor published")
        pixels = f"{known.width_px}x{known.height_px}"
        return pixels if known.num_frames is None else f"{known.num_frames} of {pixels}"

    @cached_property
    def seconds(self) -> Measured | Gap:
        """Seconds of a batch, measured here."""
        own = seconds_of(self.cell)
        return own if isinstance(own, Gap) else _times(own, self.batch)

    @cached_property
    def joules(self) -> Measured | Gap:
        """Joules of all GPUs for one image or video, measured here."""
        return joules_of(self.cell)

    @cached_property
    def published_seconds(self) -> float | Gap:
        """Seconds of a batch, published."""
        return self._not_published if self.published is None else self.published.duration_s

    @cached_property
    def published_joules(self) -> float | Gap:
        """Joules of one image or video, published."""
        return self._not_published if self.published is None else self.published.energy_per_output_j

    @cached_property
    def seconds_ratio(self) -> Measured | Gap:
        """Seconds here ÷ published."""
        return self._ratio(self.seconds, self.published_seconds)

    @cached_property
    def joules_ratio(self) -> Measured | Gap:
        """Joules here ÷ published."""
        return self._ratio(self.joules, self.published_joules)

    @property
    def _not_published(self) -> Gap:
        if self.model.startswith("tiny/"):
            return Gap("a tiny model stands in for the published one: there is nothing to lay beside it")
        return Gap(f"not among the published configurations that the package has of {self.beside}")

    @property
    def _record(self) -> ResultRecord | None:
        return None if self.cell.set_up is None else self.cell.set_up.first

    def _ratio(self, ours: Measured | Gap, theirs: float | Gap) -> Measured | Gap:
        if isinstance(ours, Gap):
            return ours
        if isinstance(theirs, Gap):
            return theirs
        assert self.published is not None and self._record is not None
        other_work = "; ".join(_other_work(self._record, self.published))
        if other_work:
            return Gap(f"not the published work: {other_work}")
        ratio = _times(ours, 1 / theirs)
        doubts = [*ratio.doubts, *self.setting_differences]
        return Measured(ratio.value, ratio.low, ratio.high, tuple(dict.fromkeys(doubts)))

    @property
    def setting_differences(self) -> list[str]:
        """Differences from the published set-up under which the ratio is that of more than the programs."""
        record, published = self._record, self.published
        return [] if record is None or published is None else [*_other_settings(record, published, self.gpu)]


def pairs_of(part: Part, options: MlEnergyV3Options, cells: Sequence[Cell]) -> list[Pair]:
    """The cells of a part with their published configurations.

    A cell with a result stands beside its own kind of GPU where that was published, one without a result
    beside the kind of most others.
    """
    published: dict[Key, PublishedRun] = {
        (run.model_id, run.gpu, run.batch_size, run.ulysses, run.ring): run
        for run in published_runs(TASKS[part])
    }
    known = {run.gpu for run in published_runs(TASKS[part])}
    gpus = [_gpu_of(cell) for cell in cells]
    counted = Counter(gpu for gpu in gpus if gpu in known)
    most = counted.most_common(1)[0][0] if counted else _DEFAULT_GPU
    pairs = []
    for cell, gpu in zip(cells, gpus, strict=True):
        beside = options.beside or (gpu if gpu in known else most)
        assert beside is not None
        pair = Pair(cell, gpu, beside, None)
        run = published.get((pair.model, beside, pair.batch, pair.ulysses, pair.ring))
        pairs.append(Pair(cell, gpu, beside, run))
    return pairs


def _gpu_of(cell: Cell) -> str | None:
    """Short name of the GPU (the driver's where no data sheet is known), or the processor's name."""
    name = None if cell.set_up is None else cell.set_up.first.device_name
    if name is None:
        return None
    try:
        return card_named(name).name
    except UserError:
        return name


def _other_work(ours: ResultRecord, theirs: PublishedRun) -> Iterator[str]:
    if (ours.width_px, ours.height_px) != (theirs.width_px, theirs.height_px):
        yield f"{ours.width_px}x{ours.height_px} px, published {theirs.width_px}x{theirs.height_px}"
    if ours.steps != theirs.steps:
        yield f"{ours.steps} steps, published {theirs.steps}"
    if ours.num_frames != theirs.num_frames:
        yield f"{ours.num_frames} frames, published {theirs.num_frames}"
    if ours.device != "cuda":
        yield f"it ran on {ours.device_name}"


def _other_settings(ours: ResultRecord, theirs: PublishedRun, gpu: str | None) -> Iterator[str]:
    if gpu != theirs.gpu:
        yield f"measured on {gpu}, published on {theirs.gpu}"
    if ours.dtype != theirs.dtype:
        yield f"measured in {ours.dtype}, published in {theirs.dtype}"
    named = {
        "compiled": ours.compile_mode,
        "quantized": ours.quantization,
        "cached": ours.cache,
        "offloaded": ours.offload,
    }
    for word, value in named.items():
        if value is not None:
            yield f"measured {word} ({value}), published without"
    if ours.engine != "xdit":
        yield f"measured with the {ours.engine} engine, published with xDiT"
    degrees = {"CFG": ours.cfg_degree, "data": ours.data_degree, "PipeFusion": ours.pipefusion_degree}
    for mode, degree in degrees.items():
        if (degree or 1) > 1:
            yield f"measured with {mode} parallelism, published without"
    if ours.power_limit_w is not None:
        yield f"measured with a power limit of {ours.power_limit_w:g} W"


def _times(one: Measured, factor: float) -> Measured:
    low = None if one.low is None else one.low * factor
    high = None if one.high is None else one.high * factor
    return Measured(one.value * factor, low, high, one.doubts)
