"""Options of the study `mlenergy-v3`, and the parts of the leaderboard."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from mlenergy.diffusion.config.args import ITERATIONS, PROCESSES
from mlenergy.diffusion.config.parser import option_group
from mlenergy.diffusion.config.workloads import BATCH
from mlenergy.diffusion.results.published import Task, published_runs
from mlenergy.diffusion.studies.study import StudyOptions

Part = Literal["image", "video"]
TASKS: dict[Part, Task] = {"image": "text-to-image", "video": "text-to-video"}


@option_group("study")
@dataclass(frozen=True, kw_only=True)
class MlEnergyV3Options(StudyOptions):
    """The public ML.ENERGY leaderboard v3 measured here, cell by cell beside what was published."""

    parts: tuple[Part, ...] = ("image", "video")
    """Parts of the leaderboard."""
    models: tuple[str, ...] = ()
    """Published models to measure, by id. Default: all of these parts."""
    batches: Annotated[tuple[int, ...], BATCH] = ()
    """Batch sizes to measure. Default: all that were published for a model."""
    max_gpus: Annotated[int | None, PROCESSES] = None
    """GPUs of a run at most. Default: as many as there are; what needs more is a gap."""
    published_only: bool = False
    """Leave out what was published for no GPU, such as a batch that is too large for one."""
    beside: Literal["H100", "B200"] | None = None
    """GPU whose published figures stand beside ours. Default: the one measured here, else H100."""
    iters: Annotated[int, ITERATIONS] = 4
    """Measured iterations of each run."""
    stand_ins: bool = False
    """Run a tiny model of each family in place of the published ones, to try the study without a GPU. Nothing
    is then compared."""


def published_models(part: Part) -> list[str]:
    """Published models of a part, in the order of the file."""
    return list(dict.fromkeys(run.model_id for run in published_runs(TASKS[part])))
