"""The VAE's decoder on parts: image by image, or tile by tile."""

from __future__ import annotations

from typing import Any


class VaeCalls:
    """Turns slicing and tiling on, and counts how often the decoder runs in each generation."""

    def __init__(self, vae: Any, *, slicing: bool, tiling: bool) -> None:
        if slicing:
            vae.enable_slicing()
        if tiling:
            vae.enable_tiling()
        self._calls: list[list[int]] = []  # per generation: rows of each decoder call
        vae.decoder.register_forward_pre_hook(self._on_decoder)

    def begin_call(self) -> None:
        """A generation begins."""
        self._calls.append([])

    def record(self, warmup_calls: int) -> dict[str, Any]:
        """Decoder calls of one generation after warm-up, and the images in each; the same every time."""
        rows = next((rows for rows in self._calls[warmup_calls:] if rows), [])
        return {"decoder_calls": len(rows), "images_per_call": max(rows, default=None)}

    def _on_decoder(self, _: Any, args: tuple[Any, ...]) -> None:
        if self._calls:
            self._calls[-1].append(int(args[0].shape[0]))
