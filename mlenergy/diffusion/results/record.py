"""One result as one flat row: what tables, comparisons and the index read, whatever version wrote it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mlenergy.diffusion.results.units import UNITS, Unit

# complete: its figures may be used; every other state has a reason and no figures.
State = Literal[
    "complete",
    "effects_pending",  # measured, but an optimization may have had no effect
    "effects_failed",  # measured, but an optimization had none
    "interrupted",
    "failed",
    "running",
    "broken",  # not whole, or with figures that cannot be
    "foreign",  # of another program
    "newer",  # of a later schema version
    "unreadable",
    "not_followed",  # a link to a folder
]

# Columns that tell whether a file is as it was when it was read.
STAMP = ("source_bytes", "source_mtime_ns", "source_ctime_ns")


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultRecord:
    """A result, or the reason why a file or folder is none. None is not known; the `_reason` says why.

    Units are in the names. `_mean`, `_stdev`, `_min` and `_max` are over the measured iterations, the
    standard deviation being that of the sample (n - 1). Images and videos have columns of their own; those of
    the other are None, and `time_mean_s`, `energy_mean_j` and their like are of whichever was generated.
    """

    folder: str  # relative to the folder that was searched, with `/`
    file: str  # results.json, results_interrupted.json, status.json; empty: the folder itself
    state: State
    reason: str | None = None  # why it is not complete

    schema_version: int | None = None
    schema_minor_version: int | None = None
    date: str | None = None

    # What ran. Two results with one `setup_digest` are repeats of one set-up, those with one
    # `platform_digest` ran on equal GPUs with equal versions.
    setup_digest: str | None = None
    platform_digest: str | None = None
    task: str | None = None
    unit: str | None = None  # what the figures count: image or video
    model_id: str | None = None
    family: str | None = None
    pipeline_class: str | None = None
    parameters_count: int | None = None  # of the whole pipeline, published or counted
    conditioning: str | None = None  # text or class
    weights: str | None = None
    engine: str | None = None
    device: str | None = None
    device_name: str | None = None
    dtype: str | None = None
    processes: int | None = None
    ulysses_degree: int | None = None
    ring_degree: int | None = None
    cfg_degree: int | None = None
    data_degree: int | None = None
    pipefusion_degree: int | None = None
    tensor_degree: int | None = None
    parallel_vae: bool | None = None
    batch_size: int | None = None
    width_px: int | None = None
    height_px: int | None = None
    num_frames: int | None = None  # of a video
    fps: int | None = None  # frames per second of a video
    video_length_s: float | None = None  # num_frames / fps
    steps: int | None = None
    guidance_scale: float | None = None
    max_sequence_length: int | None = None
    seed: int | None = None
    dataset: str | None = None
    warmup_iters: int | None = None
    benchmark_iters: int | None = None
    compile_mode: str | None = None
    attention: str | None = None
    quantization: str | None = None
    cache: str | None = None
    offload: str | None = None
    scheduler: str | None = None
    power_limit_w: float | None = None
    settings_json: str | None = None  # every setting, but the place of the results

    # Where it ran.
    hostnames: str | None = None
    nodes_count: int | None = None
    gpu_names: str | None = None  # of all GPUs of the nodes
    program_version: str | None = None
    program_commit: str | None = None
    torch_version: str | None = None
    xfuser_version: str | None = None
    diffusers_version: str | None = None
    cuda_version: str | None = None
    driver_version: str | None = None
    versions_json: str | None = None  # every version
    hardware_json: str | None = None  # GPUs and processors of the nodes

    # Figures.
    images_count: int | None = None
    iterations_count: int | None = None
    generation_time_s: float | None = None
    throughput_images_per_s: float | None = None
    time_per_image_mean_s: float | None = None
    time_per_image_stdev_s: float | None = None
    time_per_image_min_s: float | None = None
    time_per_image_max_s: float | None = None
    time_per_image_ci95_half_s: float | None = None
    time_interval_reason: str | None = None
    videos_count: int | None = None
    throughput_videos_per_s: float | None = None
    time_per_video_mean_s: float | None = None
    time_per_video_stdev_s: float | None = None
    time_per_video_min_s: float | None = None
    time_per_video_max_s: float | None = None
    time_per_video_ci95_half_s: float | None = None
    throughput_frames_per_s: float | None = None
    video_seconds_per_s: float | None = None  # seconds of video made in a second
    real_time_factor: float | None = None  # seconds that one second of video takes
    energy_total_j: float | None = None
    energy_per_image_mean_j: float | None = None
    energy_per_image_stdev_j: float | None = None
    energy_per_image_ci95_half_j: float | None = None
    energy_per_video_mean_j: float | None = None
    energy_per_video_stdev_j: float | None = None
    energy_per_video_ci95_half_j: float | None = None
    energy_per_frame_j: float | None = None
    energy_per_video_second_j: float | None = None
    energy_source: str | None = None
    energy_reason: str | None = None
    mean_power_w: float | None = None
    cpu_package_energy_j: float | None = None
    peak_memory_gb: float | None = None
    memory_reason: str | None = None
    tflops_per_gpu: float | None = None
    mfu: float | None = None
    mfu_reason: str | None = None
    first_call_s: float | None = None
    load_s: float | None = None  # of the slowest rank
    text_encode_mean_s: float | None = None
    denoise_mean_s: float | None = None
    vae_decode_mean_s: float | None = None
    other_mean_s: float | None = None
    stages_reason: str | None = None
    fid: float | None = None
    fid_reason: str | None = None
    fid_basis: str | None = None  # FIDs of different ones do not compare
    kid: float | None = None
    clip_score: float | None = None
    lpips: float | None = None
    ssim: float | None = None
    psnr_db: float | None = None

    warning_codes: str | None = None  # one a line
    warning_messages: str | None = None  # one a line, in the same order
    images_saved_count: int | None = None  # files that the result names
    images_missing_count: int | None = None  # of these, those that are not there
    videos_saved_count: int | None = None
    videos_missing_count: int | None = None

    # The file when it was read; equal stamps, equal content.
    source_bytes: int | None = None
    source_mtime_ns: int | None = None
    source_ctime_ns: int | None = None

    @property
    def counted(self) -> Unit:
        """The unit of its figures; that of images where there is no result."""
        return next((unit for unit in UNITS if unit.name == self.unit), UNITS[0])

    @property
    def outputs_count(self) -> int | None:
        """Images or videos of the measured iterations."""
        return self._count("{unit}s_count")

    @property
    def outputs_missing_count(self) -> int | None:
        """Files of images or videos that the result names and that are not there."""
        return self._count("{unit}s_missing_count")

    @property
    def throughput_per_s(self) -> float | None:
        """Images or videos per second."""
        return self._of_unit("throughput_{unit}s_per_s")

    @property
    def time_mean_s(self) -> float | None:
        """Mean seconds per image or video."""
        return self._of_unit("time_per_{unit}_mean_s")

    @property
    def time_stdev_s(self) -> float | None:
        """Standard deviation of the seconds per image or video over the iterations."""
        return self._of_unit("time_per_{unit}_stdev_s")

    @property
    def time_range_s(self) -> tuple[float | None, float | None]:
        """The least and the most seconds per image or video of an iteration."""
        return self._of_unit("time_per_{unit}_min_s"), self._of_unit("time_per_{unit}_max_s")

    @property
    def energy_mean_j(self) -> float | None:
        """Mean joules per image or video."""
        return self._of_unit("energy_per_{unit}_mean_j")

    @property
    def energy_stdev_j(self) -> float | None:
        """Standard deviation of the joules per image or video over the iterations."""
        return self._of_unit("energy_per_{unit}_stdev_j")

    def _of_unit(self, column: str) -> float | None:
        value: float | None = getattr(self, column.format(unit=self.counted.name))
        return value

    def _count(self, column: str) -> int | None:
        value: int | None = getattr(self, column.format(unit=self.counted.name))
        return value

    @property
    def path(self) -> str:
        """The file, or the folder where there is none, relative to the folder that was searched."""
        parts = [part for part in (self.folder if self.folder != "." else "", self.file) if part]
        return "/".join(parts) or "."

    @property
    def warnings(self) -> list[tuple[str, str]]:
        """Code and message of each warning."""
        codes = (self.warning_codes or "").split("\n")
        messages = (self.warning_messages or "").split("\n")
        return [pair for pair in zip(codes, messages, strict=False) if pair[0]]
