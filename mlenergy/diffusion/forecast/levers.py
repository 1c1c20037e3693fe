"""Options that act on a stage's kind of work, the largest share of a run's time first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from mlenergy.diffusion.config.optimizations import Optimizations

LEAST_SHARE = 0.05  # of the whole; less is not worth an option
# Stage and kind -> field of Optimizations, None for what is none, and what to try. Lossless first.
_ACTS: dict[tuple[str, str], tuple[tuple[str | None, str], ...]] = {
    ("denoise", "matmul"): (
        ("fuse_qkv", "--fuse_qkv"),
        ("inductor_mode", "--use_torch_compile --inductor_mode max-autotune-no-cudagraphs"),
        (None, "more GPUs for an image (--ulysses_degree)"),
        ("quantization", "--quantization fp8-dynamic (lossy)"),
    ),
    ("denoise", "attention"): (
        ("attention", "--attention_backend cudnn; fa3-hub on Hopper; fa4-hub on Hopper and Blackwell"),
        (None, "more GPUs for an image (--ulysses_degree)"),
    ),
    ("denoise", "memory"): (("compile_mode", "--use_torch_compile"),),
    ("denoise", "launches"): (
        ("compile_mode", "--use_torch_compile"),
        ("inductor_mode", "--compile_mode whole --inductor_mode reduce-overhead"),
        (None, "a larger --workload.batch_size"),
    ),
    ("denoise", "communication"): (
        (None, "fewer GPUs for an image and more images at once (--data_parallel_degree)"),
        (None, "--ulysses_degree in the place of --ring_degree"),
    ),
    ("vae_decode", "matmul"): (
        ("vae_channels_last", "--vae_channels_last"),
        ("cudnn_benchmark", "--cudnn_benchmark"),
        ("compile_vae", "--compile_vae"),
    ),
    ("vae_decode", "memory"): (
        ("compile_vae", "--compile_vae"),
        ("vae_channels_last", "--vae_channels_last"),
    ),
    ("vae_decode", "launches"): (("compile_vae", "--compile_vae"),),
    ("text_encode", "matmul"): ((None, "a larger --workload.batch_size"),),
    ("text_encode", "memory"): (("compile_text_encoders", "--compile_text_encoders"),),
    ("text_encode", "launches"): (("compile_text_encoders", "--compile_text_encoders"),),
    ("other", "waiting"): ((None, "a larger --workload.batch_size"),),
}
_PROFILE = "profile it: no term accounts for this time"


@dataclass(frozen=True)
class Lever:
    """A share of a run's time and what acts on it.

    share: of the whole run's time.
    options: that the run did not use; empty where all that act on this are in use.
    """

    stage: str
    kind: str
    share: float
    options: tuple[str, ...]


def levers_of(
    seconds: Mapping[str, Mapping[str, float]], optimizations: Optimizations, gpus: int
) -> tuple[Lever, ...]:
    """Levers for every share that is worth one, largest first.

    Args:
        seconds: stage -> kind -> seconds.
        optimizations: of the run.
        gpus: of the run.
    """
    whole = sum(sum(kinds.values()) for kinds in seconds.values())
    found = [
        Lever(stage, kind, part / whole, tuple(_options(stage, kind, optimizations, gpus)))
        for stage, kinds in seconds.items()
        for kind, part in kinds.items()
        if whole > 0 and part / whole >= LEAST_SHARE
    ]
    return tuple(sorted(found, key=lambda lever: -lever.share))


def _options(stage: str, kind: str, optimizations: Optimizations, gpus: int) -> Iterator[str]:
    known = _ACTS.get((stage, kind), ((None, _PROFILE),) if kind == "waiting" else ())
    if stage == "vae_decode" and gpus > 1:
        yield "--use_parallel_vae"
    for field, text in known:
        if field is None or field not in optimizations.in_use:
            yield text
