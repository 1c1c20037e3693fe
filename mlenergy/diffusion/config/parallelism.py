"""Degrees of the parallel modes against processes, in whole numbers, and the modes' names."""

from __future__ import annotations

import math
from dataclasses import dataclass

from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.models.spec import Mode


@dataclass(frozen=True)
class ParallelMode:
    """A mode as commands and reports write it."""

    option: str  # of the command line, without its hyphens
    label: str  # in reports


# Those with a degree stand from the slowest-changing coordinate of a rank to the fastest, so that ranks
# that talk most are neighbours; both engines form their groups in this order.
MODES: dict[Mode, ParallelMode] = {
    "data": ParallelMode("data_parallel_degree", "data"),
    "cfg": ParallelMode("use_cfg_parallel", "CFG"),
    "pipefusion": ParallelMode("pipefusion_parallel_degree", "PipeFusion"),
    "ring": ParallelMode("ring_degree", "ring"),
    "ulysses": ParallelMode("ulysses_degree", "Ulysses"),
    "tensor": ParallelMode("tensor_parallel_degree", "tensor"),
    "parallel-vae": ParallelMode("use_parallel_vae", "parallel VAE"),
}
# Fields of Parallelism whose product is the number of processes.
AXES: tuple[str, ...] = tuple(mode for mode in MODES if mode != "parallel-vae")


@dataclass(frozen=True)
class Parallelism:
    """Degrees of every parallel mode; their product is the number of processes."""

    data: int = 1
    cfg: int = 1
    pipefusion: int = 1
    ring: int = 1
    ulysses: int = 1
    tensor: int = 1
    num_pipeline_patch: int | None = None  # PipeFusion only; None: as many as its degree
    pipefusion_warmup_steps: int = 1  # PipeFusion's synchronous steps
    parallel_vae: bool = False

    @property
    def world_size(self) -> int:
        """Processes that these degrees need."""
        return math.prod(getattr(self, axis) for axis in AXES)

    @property
    def modes(self) -> list[Mode]:
        """The parallel modes that these degrees use."""
        used: list[Mode] = [mode for mode in MODES if mode in AXES and getattr(self, mode) > 1]
        return [*used, "parallel-vae"] if self.parallel_vae else used

    @property
    def pipeline_patches(self) -> int:
        """Patches that PipeFusion is asked for: as many as it has stages, where none are named."""
        return self.num_pipeline_patch or self.pipefusion

    @property
    def sequence(self) -> int:
        """Ranks that share one image's token sequence."""
        return self.ring * self.ulysses


def share_out(
    ulysses: int | None, ring: int | None, others: dict[str, int], world_size: int | None, heads: int | None
) -> tuple[int, int]:
    """Ulysses and ring degree, where what the user left open takes what the others leave over.

    Args:
        ulysses: explicit degree, None where the user gave none.
        ring: the same for ring.
        others: option name -> degree of every other mode.
        world_size: processes that were started; None where none were, so that the degrees decide.
        heads: attention heads of the denoiser, which Ulysses has to divide; None where not known.

    Raises:
        UserError: a degree below 1, or degrees that cannot make the world size; with the arithmetic.
    """
    given = {"ulysses_degree": ulysses, "ring_degree": ring, **others}
    for name, degree in given.items():
        if degree is not None and degree < 1:
            raise UserError(f"--{name} {degree} is below 1; use 1 to leave that mode out")
    if world_size is None:
        return ulysses or 1, ring or 1
    known = math.prod(degree for degree in given.values() if degree is not None)
    left, remainder = divmod(world_size, known)
    if remainder or (left > 1 and ulysses is not None and ring is not None):
        raise UserError(_mismatch(given, known, world_size, heads))
    if ulysses is not None:
        return ulysses, ring if ring is not None else left
    if ring is not None:
        return left, ring
    by_heads = max(d for d in _divisors(left) if heads is None or heads % d == 0)
    return by_heads, left // by_heads


def _mismatch(given: dict[str, int | None], known: int, world_size: int, heads: int | None) -> str:
    shown = {
        name: d
        for name, d in given.items()
        if d is not None and (d > 1 or "ulysses" in name or "ring" in name)
    }
    product = " x ".join(_shown(name, degree) for name, degree in shown.items())
    others = math.prod(
        d for n, d in given.items() if d is not None and n not in ("ulysses_degree", "ring_degree")
    )
    line = f"{product} = {known}, but {world_size} processes were started"
    if world_size % others:
        return f"{line}; start a multiple of {others} processes (--nproc_per_node={known} fits these degrees)"
    fits = [
        f"--ulysses_degree {u} --ring_degree {world_size // others // u}"
        for u in _divisors(world_size // others)
        if heads is None or heads % u == 0
    ]
    return f"{line}; use {' or '.join(fits)}, or start {known} processes (--nproc_per_node={known})"


def _shown(name: str, degree: int) -> str:
    return f"--{name} ({degree})" if name.startswith("use_") else f"--{name} {degree}"


def _divisors(number: int) -> list[int]:
    return [d for d in range(1, number + 1) if number % d == 0]
