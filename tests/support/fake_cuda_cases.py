"""The cases that run on fake GPUs, as data: each family, engine and mode, one rank of each."""

from __future__ import annotations

from dataclasses import dataclass

from mlenergy.diffusion.models.listed import BY_ID
from mlenergy.diffusion.models.spec import EngineName, Mode

# Name -> modes that an engine has to offer, ranks, words of the command line.
MODES: dict[str, tuple[frozenset[Mode], int, str]] = {
    "alone": (frozenset(), 1, ""),
    "data 2": (frozenset({"data"}), 2, "--data_parallel_degree 2"),
    "cfg 2": (frozenset({"cfg"}), 2, "--use_cfg_parallel"),
    "ulysses 2": (frozenset({"ulysses"}), 2, "--ulysses_degree 2"),
    "ring 2": (frozenset({"ring"}), 2, "--ring_degree 2"),
    "ulysses 2 x ring 2": (frozenset({"ulysses", "ring"}), 4, "--ulysses_degree 2 --ring_degree 2"),
    "cfg 2 x ulysses 2": (frozenset({"cfg", "ulysses"}), 4, "--use_cfg_parallel --ulysses_degree 2"),
    "cfg 2 x ring 2": (frozenset({"cfg", "ring"}), 4, "--use_cfg_parallel --ring_degree 2"),
    "tensor 2": (frozenset({"tensor"}), 2, "--tensor_parallel_degree 2"),
    "ulysses 2, parallel vae": (
        frozenset({"ulysses", "parallel-vae"}),
        2,
        "--ulysses_degree 2 --use_parallel_vae",
    ),
}
# FLUX.2's pipelines place latents by the values of their ids, which fake tensors have not: FLUX.2-dev's
# become an image of no pixels. Qwen-Image cuts its template off the text by values, and nothing is left.
_PLACED_BY_VALUES = ("tiny/flux2", "tiny/flux2-klein")
MODELS = tuple(
    # Texts as long as their prompts are cut by values, too.
    name
    for name, spec in BY_ID.items()
    # Those without a cost model run as diffusers has them: no branch of theirs is of this package.
    if name.startswith("tiny/")
    and spec.family.pads_text
    and not spec.family.cuts_text
    and spec.family.has_cost_model
    and name not in _PLACED_BY_VALUES
)
# The other models of a family run the same code by other numbers: they take fewer modes.
_FIRST_OF_FAMILY = {BY_ID[name].family.name: name for name in reversed(MODELS)}
_MODES_OF_OTHERS = ("alone", "ulysses 2", "cfg 2")
# Products of modes are the same code in every family: joint blocks, guidance in a batch, and by calls.
_PRODUCTS_ON = ("tiny/flux", "tiny/sd3", "tiny/wan")


@dataclass(frozen=True)
class Case:
    """One rank of one run on fake GPUs; `rank` is the last, whose GPU is not the first."""

    model: str
    engine: EngineName
    mode: str
    words: str = ""  # more options
    without: tuple[str, ...] = ()  # patches that are left out, to show their faults

    @property
    def world(self) -> int:
        """Ranks."""
        return MODES[self.mode][1]

    @property
    def name(self) -> str:
        """Unique."""
        words = (self.model.removeprefix("tiny/"), self.engine, self.mode, self.words)
        return " ".join(word for word in (*words, *(f"without {name}" for name in self.without)) if word)

    def asked(self) -> dict[str, object]:
        """What the worker takes."""
        return {
            "words": self._words(),
            "rank": self.world - 1,
            "world": self.world,
            "yes": "cache" not in self.words,  # a cache that is asked computes anew
            "without": list(self.without),
        }

    def _words(self) -> list[str]:
        rows = 2 if self.mode == "data 2" else 1
        work = f"--workload.model_id {self.model} --workload.batch_size {rows} --workload.dtype bfloat16"
        if BY_ID[self.model].next_scale is None:  # else the size and the scales are the model's
            work += " --workload.height 128 --workload.width 128 --workload.inference_steps 3"
        if self.model.startswith("tiny/sd3"):
            # 140 tokens with CLIP's: of uneven parts ranks tell each other the lengths, which are values.
            work += " --workload.max_sequence_length 63"
        options = f"--engine {self.engine} {MODES[self.mode][2]} {self.words}"
        kind = "t2v" if BY_ID[self.model].family.makes_video else "t2i"
        return [*options.split(), f"workload:{kind}", *work.split()]


def _modes() -> list[Case]:
    return [
        Case(model, engine, mode)
        for model in MODELS
        for engine, offered in BY_ID[model].family.modes.items()
        for mode, (needed, _, _) in MODES.items()
        # DistVAE, which shares the decoders of videos, learns the rows of the other ranks from messages.
        if needed <= offered and not ("parallel-vae" in needed and BY_ID[model].family.makes_video)
        if model == _FIRST_OF_FAMILY[BY_ID[model].family.name] or mode in _MODES_OF_OTHERS
        if model in _PRODUCTS_ON or " x " not in mode
    ]


def _kernels() -> list[Case]:
    kernels = ("math", "flash", "efficient", "cudnn")
    alone = [
        Case(f"tiny/{model}", "diffusers", "alone", f"--attention_backend {kernel}")
        for model in ("flux", "sd3.5", "pixart-alpha", "sdxl")
        for kernel in kernels
    ]
    # Of a ring, the math kernel gives no log-sum-exp.
    shared = [
        Case(f"tiny/{model}", "xdit", mode, f"--attention_backend {kernel}")
        for model in ("flux", "sd3.5")
        for mode in ("ulysses 2", "ring 2")
        for kernel in kernels[1:]
    ]
    return alone + shared


LAYOUTS = "--fuse_qkv --vae_channels_last --unet_channels_last --cudnn_benchmark"
_LAYOUTS = [
    Case("tiny/sdxl", "xdit", "alone", LAYOUTS),
    Case("tiny/sdxl", "diffusers", "cfg 2", LAYOUTS),
    Case("tiny/flux", "diffusers", "ulysses 2", "--fuse_qkv --vae_channels_last --tf32 --vae_dtype float32"),
    Case("tiny/pixart-sigma", "diffusers", "ring 2", "--fuse_qkv --attention_backend flash"),
]
_CACHED = [
    Case("tiny/flux", "xdit", mode, f"--use_{cache}")
    for mode in ("ulysses 2", "ring 2")
    for cache in ("fbcache", "teacache")
]
# Of the families that MODELS leaves out, those set-ups whose shapes need no values.
_WITHOUT_VALUES = [
    *(
        Case(f"tiny/{model}", engine, "alone")
        for model in ("flux2-klein", "z-image")
        for engine in BY_ID[f"tiny/{model}"].family.modes
    ),
    Case("tiny/flux2-klein", "diffusers", "cfg 2"),
]
# PipeFusion is not here: its stages learn the shapes of what they receive from values.
CASES = {case.name: case for case in (*_modes(), *_kernels(), *_LAYOUTS, *_CACHED, *_WITHOUT_VALUES)}
# Every family's way of stepping, both engines, ring, Ulysses, guidance and a cache, at some ten seconds.
QUICK = (
    *(
        "flux xdit ring 2",
        "hunyuandit xdit ulysses 2",
        "sd3.5 diffusers cfg 2",
        "pixart-sigma diffusers ring 2",
    ),
    *(f"sdxl xdit alone {LAYOUTS}", "flux xdit ulysses 2 --use_fbcache", "var autoregressive data 2"),
)
SHOWN = {
    case.name: case
    for case in (
        Case("tiny/flux", "xdit", "ring 2", without=("flow-euler-waits", "cudnn-views")),
        Case("tiny/sd3.5", "xdit", "ring 2", "--attention_backend efficient", ("efficient-ring-padding",)),
        Case("tiny/hunyuandit", "xdit", "ulysses 2", without=("hunyuandit-rotary-copies",)),
        Case("tiny/flux", "xdit", "ulysses 2", "--use_fbcache", ("caches-on-first-gpu",)),
    )
}
