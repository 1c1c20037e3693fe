"""The protocol of an engine: a batch in, images out. Imports nothing of this package."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Batch:
    """One iteration's work, the same on every rank: the whole batch of all data-parallel groups."""

    prompts: tuple[str, ...]
    seeds: tuple[int, ...]  # one noise seed an image, so an image does not depend on its batch
    class_ids: tuple[int, ...] = ()  # one an image, where a class steers it; else none


@dataclass(frozen=True)
class Generated:
    """Images or videos on this rank's device.

    images: float in [0, 1], (n, 3, height, width), of videos (n, frames, 3, height, width); None on ranks
        that hold none.
    first_row: index in the batch of the first of them.
    """

    images: torch.Tensor | None
    first_row: int = 0
    latents: tuple[torch.Tensor, ...] = ()  # what the decoder took, where it was asked for; in row order


@dataclass(frozen=True)
class LoadReport:
    """Seconds of loading, and facts that only the engine knows, for the results."""

    load_s: float
    facts: Mapping[str, Any] = field(default_factory=dict)  # attention backend used, patches applied


class Engine(Protocol):
    """A loaded pipeline on this rank's device."""

    name: str
    device: torch.device
    report: LoadReport

    def components(self) -> Mapping[str, torch.nn.Module]:
        """Name -> module whose forward this rank calls (text_encoder, transformer, vae, ...)."""
        ...

    def generate(self, batch: Batch) -> Generated:
        """Run text encoding, every step and the decode; no transfer to the host, no file."""
        ...

    def effects(self, warmup_calls: int) -> dict[str, Any]:
        """Effects of the plan's optimizations in the calls after the first `warmup_calls`; plain data.

        Every rank has to call it: one short generation looks at the attention kernels.
        """
        ...

    def close(self) -> None:
        """Free what the engine holds. The process group is not its own to destroy."""
        ...
