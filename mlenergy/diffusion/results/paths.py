"""Every file name of a run, in one place."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mlenergy.diffusion.config.plan import Plan
from mlenergy.diffusion.results.letters import end_of, kept, slug, start_of
from mlenergy.diffusion.results.names import folder_name

_MODEL_BYTES = 80  # of a model id in a file name, in UTF-8
_SLUG_BYTES = 60  # of a prompt


@dataclass(frozen=True)
class RunPaths:
    """The files of one run; nothing is created here."""

    folder: Path
    model_slug: str

    @classmethod
    def of(cls, plan: Plan) -> RunPaths:
        """The paths of a plan: a folder in `plan.base_dir` that no other set-up has."""
        return cls(Path(plan.base_dir) / folder_name(plan), model_slug(plan.spec.model_id))

    @property
    def requests(self) -> Path:
        """Requests to the model: prompts, seeds, and their provenance."""
        return self.folder / "requests.json"

    @property
    def results(self) -> Path:
        """Everything that was measured. It is the last file of a run to be written."""
        return self.folder / "results.json"

    @property
    def interrupted(self) -> Path:
        """Measurements up to the signal that ended a run; of the same form as a result, but not one."""
        return self.folder / "results_interrupted.json"

    @property
    def status(self) -> Path:
        """State of the run, and how it ended."""
        return self.folder / "status.json"

    def stacks(self, rank: int) -> Path:
        """Stacks of a rank's threads, written when a run hangs."""
        return self.folder / f"stacks_rank{rank}.txt"

    @property
    def driver_log(self) -> Path:
        """Output of the program and its libraries."""
        return self.folder / "driver_log.txt"

    @property
    def timeline(self) -> Path:
        """Power, temperature and clocks over the run."""
        return self.folder / "timeline.parquet"

    @property
    def images(self) -> Path:
        """Folder of the generated images."""
        return self.folder / "image_outputs"

    @property
    def videos(self) -> Path:
        """Folder of the generated videos."""
        return self.folder / "video_outputs"

    @property
    def latents(self) -> Path:
        """Folder of the final latents."""
        return self.folder / "latent_outputs"

    @property
    def new(self) -> RunPaths:
        """Paths of a new result before it takes the place of the one here."""
        return RunPaths(self.folder / ".new", self.model_slug)

    @property
    def lock(self) -> Path:
        """Held while a run writes here; says which process on which host."""
        return self.folder / ".lock"

    def image(self, index: int, prompt: str) -> Path:
        """The file of image `index` (from 0); its name counts from 1 and ends in the prompt's first words."""
        return self.images / f"{self.model_slug}_{index + 1:04d}_{prompt_slug(prompt)}.png"

    def video(self, index: int, prompt: str) -> Path:
        """The file of video `index` (from 0), named like an image's."""
        return self.videos / self.image(index, prompt).with_suffix(".mp4").name

    def latent(self, index: int, prompt: str) -> Path:
        """The file of the final latents of output `index` (from 0), named like an image's."""
        return self.latents / self.image(index, prompt).with_suffix(".safetensors").name

    def relative(self, path: Path) -> str:
        """A file of this run as written into its results, so that the folder can be moved."""
        return path.relative_to(self.folder).as_posix()


def model_slug(model_id: str) -> str:
    """A model id as part of a file name: black-forest-labs/FLUX.1-dev -> black-forest-labs-FLUX_1-dev."""
    # A local folder is an absolute path, of which the end says most.
    return end_of(kept(model_id.strip("/").replace("/", "-").replace(".", "_"), "-_"), _MODEL_BYTES)


def prompt_slug(prompt: str) -> str:
    """The first words of a prompt in lower-case letters, digits and underscores; `untitled` if none."""
    # The cut before the work keeps a prompt of megabytes from costing anything.
    words = slug(prompt[: 10 * _SLUG_BYTES])
    if len(words.encode()) > _SLUG_BYTES:
        words = start_of(words, _SLUG_BYTES + 1).rpartition("_")[0] or start_of(words, _SLUG_BYTES)
    return words or "untitled"
