"""SD3's text length: as many tokens as were asked for, on one rank and on many."""

from __future__ import annotations

from typing import Any

from mlenergy.diffusion.engines.xdit.patches.patch import Patch


def sd3_text_length() -> list[Patch]:
    """Pass ``max_sequence_length`` on to the text encoders.

    xfuser's parallel call swallows it, so that many ranks always encode 256 tokens.
    """
    from xfuser import xFuserStableDiffusion3Pipeline

    return [
        Patch(xFuserStableDiffusion3Pipeline, "__call__", _remember_length),
        Patch(xFuserStableDiffusion3Pipeline, "encode_prompt", lambda _: _encode_prompt),
    ]


def _remember_length(original: Any) -> Any:
    def call(self: Any, *args: Any, **options: Any) -> Any:
        self._requested_text_tokens = options.get("max_sequence_length")
        return original(self, *args, **options)

    return call


def _encode_prompt(self: Any, *args: Any, **options: Any) -> Any:
    if self._requested_text_tokens is not None:
        options.setdefault("max_sequence_length", self._requested_text_tokens)
    return self.module.encode_prompt(*args, **options)
