"""The benchmark and its results from Python: `from mlenergy.diffusion import benchmark, load_results`."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlenergy.diffusion.config.args import BenchmarkArgs
from mlenergy.diffusion.config.argv import DEFAULT_WORKLOAD, VIDEO_WORKLOAD, WORKLOAD, to_argv
from mlenergy.diffusion.config.option import nearest
from mlenergy.diffusion.config.resolve import plan_from
from mlenergy.diffusion.config.workloads import TextToImage, TextToVideo
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.executors.process import errors_in
from mlenergy.diffusion.models.listed import BY_ID
from mlenergy.diffusion.results.collect import collect
from mlenergy.diffusion.results.paths import RunPaths
from mlenergy.diffusion.results.read import read_result
from mlenergy.diffusion.results.units import IMAGE, VIDEO, Unit, unit_of

if TYPE_CHECKING:
    import pandas

_LINES_KEPT = 50  # of the output, to find the error in
_OF_RUN = {one.name for one in fields(BenchmarkArgs)} - {WORKLOAD}
_OF_IMAGES = {one.name for one in fields(TextToImage)}
_OF_VIDEOS = {one.name for one in fields(TextToVideo)}
_OF_WORKLOAD = _OF_IMAGES | _OF_VIDEOS


@dataclass(frozen=True)
class Result:
    """A measured run. Numbers that could not be measured are None; `content` says why.

    A run of videos has none of the figures of images, and the other way round: asking for them is an
    AttributeError.
    """

    folder: Path
    content: Mapping[str, Any] = field(repr=False)  # of results.json: docs/results.md describes every key

    @property
    def seconds_per_image(self) -> float:
        """Mean over the measured windows, in seconds."""
        return self._known(IMAGE, IMAGE.mean_time)

    @property
    def joules_per_image(self) -> float | None:
        """Energy of all GPUs of the run, in joules."""
        return self._of(IMAGE, IMAGE.energy)

    @property
    def images_per_second(self) -> float:
        """Throughput over the measured windows."""
        return self._known(IMAGE, IMAGE.throughput)

    @property
    def seconds_per_video(self) -> float:
        """Mean over the measured windows, in seconds."""
        return self._known(VIDEO, VIDEO.mean_time)

    @property
    def joules_per_video(self) -> float | None:
        """Energy of all GPUs of the run, in joules."""
        return self._of(VIDEO, VIDEO.energy)

    @property
    def videos_per_second(self) -> float:
        """Throughput over the measured windows."""
        return self._known(VIDEO, VIDEO.throughput)

    @property
    def frames_per_second(self) -> float:
        """Frames of all videos, made in a second."""
        return self._known(VIDEO, "throughput_frames_per_sec")

    @property
    def real_time_factor(self) -> float:
        """Seconds that one second of video takes."""
        return self._known(VIDEO, "real_time_factor")

    @property
    def joules_per_frame(self) -> float | None:
        """Energy of all GPUs of the run, in joules."""
        return self._of(VIDEO, "energy_per_frame_j")

    @property
    def peak_memory_gb(self) -> float | None:
        """Peak memory of the fullest GPU, in 10⁹ bytes."""
        return self._number("peak_memory_gb")

    @property
    def images(self) -> list[Path]:
        """Files of the images, in the order of the prompts; empty where they were not saved."""
        return self._files(IMAGE)

    @property
    def videos(self) -> list[Path]:
        """Files of the videos, in the order of the prompts; empty where they were not saved."""
        return self._files(VIDEO)

    def _files(self, unit: Unit) -> list[Path]:
        self._check(unit)
        names = [output[unit.file] for output in self.content["generation_results"]]
        return [self.folder / name for name in names if name is not None]

    def _known(self, unit: Unit, key: str) -> float:
        self._check(unit)
        return float(self.content[key])

    def _of(self, unit: Unit, key: str) -> float | None:
        self._check(unit)
        return self._number(key)

    def _check(self, unit: Unit) -> None:
        made = unit_of(self.content)
        if made != unit:
            raise AttributeError(f"this run made {made.count}; it has no figures of {unit.count}")

    def _number(self, key: str) -> float | None:
        value = self.content[key]
        return None if value is None else float(value)


def benchmark(model_id: str, *, quiet: bool = False, **options: Any) -> Result:
    """Measure seconds, joules and gigabytes per image or video, as `mlenergy run` does, in its own processes.

    A set-up that has been measured before is not measured again, unless `overwrite_results=True`.

    Args:
        model_id: a listed id, another hub id, a local folder, or `tiny/flux` for trying things out.
        quiet: print nothing; otherwise the run's lines appear as they come.
        options: those of `mlenergy run --help` by name, the workload's among them:
            `benchmark("tiny/flux", ulysses_degree=2, batch_size=4, device="cpu")`. `workload` is
            text-to-video for a listed model of videos and for options that videos alone have (`num_frames`).

    Raises:
        UserError: the options cannot work, or the run failed; one line that says what to do.
        KeyboardInterrupt: the run was interrupted; what it had measured is in its folder.
    """
    argv = argv_of(model_id, options)
    _, plan = plan_from(argv, None, prog="benchmark()")
    if options.get("dry_run"):
        raise UserError("dry_run measures nothing; leave it out, or use mlenergy run --dry_run")
    lines = _run([sys.executable, "-m", "mlenergy.diffusion", "run", *argv], quiet)
    folder = RunPaths.of(plan).folder
    content = read_result(folder / "results.json")
    if content is None:
        raise UserError(f"the run left no result in {folder}: {lines[-1] if lines else 'it printed nothing'}")
    return Result(folder, content)


def load_results(*paths: str | PathLike[str]) -> pandas.DataFrame:
    """Every result below the given folders as a table: one row a run, units in the columns' names.

    What is no complete result has a row too: `state` and `reason` say what it is.

    Args:
        paths: result folders, folders that hold some at any depth, or patterns with `*`.

    Raises:
        UserError: one of them names nothing.
    """
    import pandas

    found = collect([str(path) for path in paths])
    rows = [asdict(record) for record in (*found.results, *found.others)]
    return pandas.DataFrame(rows).dropna(axis="columns", how="all") if rows else pandas.DataFrame()


def argv_of(model_id: str, options: Mapping[str, Any]) -> tuple[str, ...]:
    """The command line of options by name.

    Raises:
        UserError: there is no such option.
    """
    of_run = dict(options)
    workload = of_run.pop(WORKLOAD, None) or _workload_of(model_id, of_run)
    full: dict[str, Any] = {WORKLOAD: workload}
    for name, value in {**of_run, "model_id": model_id}.items():
        if name not in _OF_RUN | _OF_WORKLOAD:
            raise UserError(f"there is no option {name}{_meant(name)}; mlenergy run --help lists them")
        full[name if name in _OF_RUN else f"{WORKLOAD}.{name}"] = value
    return to_argv(full)


def _workload_of(model_id: str, options: Mapping[str, Any]) -> str:
    """The workload that a call without one means: that of the model, or of the options."""
    listed = BY_ID.get(model_id)
    is_video = (
        listed.family.makes_video if listed is not None else bool(options.keys() & _OF_VIDEOS - _OF_IMAGES)
    )
    return VIDEO_WORKLOAD if is_video else DEFAULT_WORKLOAD


def _meant(name: str) -> str:
    close = nearest(name, _OF_RUN | _OF_WORKLOAD)
    return f" (did you mean {close}?)" if close else ""


def _run(command: list[str], quiet: bool) -> list[str]:
    """Run to the end; the last lines of its output.

    Raises:
        UserError: it failed, with its error.
    """
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # Ctrl-C reaches this process alone, which then asks the run to stop once
    )
    kept: deque[str] = deque(maxlen=_LINES_KEPT)
    assert process.stdout is not None
    try:
        for line in process.stdout:
            text = line.decode(errors="replace").rstrip("\n")
            kept.append(text)
            if not quiet:
                print(text, flush=True)
        code = process.wait()
    except BaseException:
        process.send_signal(signal.SIGINT)
        process.communicate()  # it saves what it has measured
        raise
    if code:
        raise UserError((errors_in(kept) or [f"the run ended with exit code {code}"])[-1])
    return list(kept)
