"""One parity case as data, and the degrees that families share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from mlenergy.diffusion.config.parallelism import Parallelism
from mlenergy.diffusion.models.spec import EngineName

EQUAL = 1e-5  # max abs difference of pixels in [0, 1]; float32
EQUAL_BATCH = 5e-5  # data-parallel: another batch size rounds differently

PROMPTS = (
    "a fox in the snow",
    "seven blue boats on a lake at dusk, seen from the hill above the town",
    "an owl reading a book",
    "portrait of a clockmaker, oil on canvas, warm light from the left, very fine detail",
)


@dataclass(frozen=True)
class Call:
    """One call of the engine: images or videos, and their size in pixels."""

    batch: int = 1
    height_px: int = 64
    width_px: int = 64
    frames: int | None = None  # None: the model's default, or images


ONE_RANK = Parallelism()
TWO_BATCHES = (Call(1), Call(2))
CHANGING = (Call(1), Call(2, 64, 96), Call(1, 128, 64), Call(3))  # batch and shape change between calls
SHARED = (Call(2), Call(4, 64, 96))  # what two data-parallel groups can share


@dataclass(frozen=True)
class Case:
    """One engine with its degrees, and the calls it serves one after the other."""

    name: str
    model: str
    degrees: Parallelism = ONE_RANK
    engine: EngineName = "xdit"
    calls: tuple[Call, ...] = TWO_BATCHES
    steps: int = 2
    text_tokens: int | None = None  # None: the model's default
    guidance: float | None = None  # None: the model's default
    negative: str | None = None
    threshold: float = EQUAL
    against: Parallelism | None = None  # compare with these degrees of the same engine, not with one rank
    blind: bool = False  # image tokens do not see each other, so that stale ones cannot matter
    without_patches: tuple[str, ...] = ()  # names in xdit_faults.py: shows that the fault is still there
    refused: bool = False  # the plan refuses it; here it runs all the same
    latents: bool = False  # compare what the decoder would be given
    decoding: bool = False  # compare with what one process makes of the same latents, not of the same noise
    shifted_rank: int | None = None  # this rank's slice is shifted by one token: broken on purpose

    @property
    def world_size(self) -> int:
        """Processes that the case needs."""
        return self.degrees.world_size

    @property
    def short(self) -> str:
        """The model's name without its folder."""
        return self.model.removeprefix("tiny/")

    def reference(self, call: Call) -> Case:
        """The one-rank case of plain diffusers whose image this call has to give."""
        return replace(
            self,
            name="",
            degrees=ONE_RANK,
            engine="diffusers",
            calls=(call,),
            threshold=0.0,
            against=None,
            without_patches=(),
            refused=False,
            shifted_rank=None,
        )


Modes = Mapping[str, Parallelism]

TWO: Modes = {"ulysses 2": Parallelism(ulysses=2), "ring 2": Parallelism(ring=2)}
FOUR: Modes = {
    "ulysses 2 x ring 2": Parallelism(ulysses=2, ring=2),
    "ulysses 4": Parallelism(ulysses=4),
    "ring 4": Parallelism(ring=4),
}
TENSOR: Modes = {"tensor 2": Parallelism(tensor=2)}
CFG: Modes = {"cfg 2": Parallelism(cfg=2)}
CFG_FOUR: Modes = {
    "cfg 2 x ulysses 2": Parallelism(cfg=2, ulysses=2),
    "cfg 2 x ring 2": Parallelism(cfg=2, ring=2),
}
ONE_PATCH: Modes = {"pipefusion 2, one patch": Parallelism(pipefusion=2, num_pipeline_patch=1)}
SYNCHRONOUS: Modes = {
    "pipefusion 2, synchronous": Parallelism(pipefusion=2, pipefusion_warmup_steps=2),
}
ONE_PATCH_FOUR: Modes = {
    "pipefusion 2 x ulysses 2, one patch": Parallelism(pipefusion=2, ulysses=2, num_pipeline_patch=1),
    "pipefusion 2 x ring 2, one patch": Parallelism(pipefusion=2, ring=2, num_pipeline_patch=1),
    "pipefusion 4, one patch": Parallelism(pipefusion=4, num_pipeline_patch=1),
}
ONE_PATCH_CFG: Modes = {
    "pipefusion 2 x cfg 2, one patch": Parallelism(pipefusion=2, cfg=2, num_pipeline_patch=1),
}
VAE: Modes = {"ulysses 2, parallel vae": Parallelism(ulysses=2, parallel_vae=True)}
VAE_TOO: Modes = {
    "ring 2, parallel vae": Parallelism(ring=2, parallel_vae=True),
    "pipefusion 2, one patch, parallel vae": Parallelism(
        pipefusion=2, num_pipeline_patch=1, parallel_vae=True
    ),
}
VAE_CFG: Modes = {"cfg 2, parallel vae": Parallelism(cfg=2, parallel_vae=True)}
DATA: Modes = {"data 2": Parallelism(data=2)}
DATA_FOUR: Modes = {
    "data 2 x ulysses 2": Parallelism(data=2, ulysses=2),
    "data 2 x ring 2": Parallelism(data=2, ring=2),
}
DATA_ONE_PATCH: Modes = {
    "data 2 x pipefusion 2, one patch": Parallelism(data=2, pipefusion=2, num_pipeline_patch=1),
}
DATA_CFG: Modes = {"data 2 x cfg 2": Parallelism(data=2, cfg=2)}

PIPEFUSION = Parallelism(pipefusion=2)
DATA_PIPEFUSION = Parallelism(data=2, pipefusion=2)


def each(model: str, modes: Modes, suffix: str = "", **fields: object) -> Iterable[Case]:
    for mode, degrees in modes.items():
        case = Case(f"{model.removeprefix('tiny/')} {mode}{suffix}", model, degrees)
        yield replace(case, **fields)  # type: ignore[arg-type]  # the caller names Case's own fields


def without(fault: str, model: str, degrees: Parallelism = TWO["ulysses 2"], **fields: object) -> Case:
    case = Case(
        f"{model.removeprefix('tiny/')} without the patch {fault}", model, degrees, without_patches=(fault,)
    )
    return replace(case, **fields)  # type: ignore[arg-type]  # the caller names Case's own fields
