"""Stage times by hooks on the pipeline's components; no forward is edited."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from mlenergy.diffusion.measure.samples import StageTimes

if TYPE_CHECKING:
    import torch

Place = Literal["window", "text_in", "text_out", "denoise_in", "denoise_out", "vae_in", "vae_out"]
OnStage = Callable[[str], None]


@dataclass(frozen=True)
class StageSpans:
    """Where one window's stages lie, in seconds since the window's begin, on one rank.

    text: from entry to exit of every call of a text encoder.
    steps: begin of every denoising step (None where calls do not fit the steps).
    denoise: first entry of the denoiser to the entry of the VAE (its own exit on ranks without one).
    decode: entry of the VAE's decoder to its last exit; None on ranks that do not decode.
    """

    text: tuple[tuple[float, float], ...]
    steps: tuple[float, ...] | None
    denoise: tuple[float, float]
    decode: tuple[float, float] | None
    step_reason: str | None = None

    @property
    def stage_s(self) -> float:
        """Seconds that the stages take together."""
        text_s = sum(end - begin for begin, end in self.text)
        decode_s = self.decode[1] - self.decode[0] if self.decode else 0.0
        return text_s + self.denoise[1] - self.denoise[0] + decode_s


class StageProbe:
    """Hooks that mark, on the device's own clock, when each component is entered and left.

    On CUDA a mark is an event in the stream, so that the hooks neither wait nor make the
    host wait; on a CPU, where a forward returns when it is done, it is the host's clock.
    Use as a context manager: the hooks are gone afterwards.

    Args:
        components: name -> module, as an engine's ``components()`` gives them.
        steps: denoising steps of one window.
        device: the device that the components run on.
        calls: how often the denoiser is called in each step, one number a step, where
            that is known and uneven (PipeFusion); None: evenly.
        on_stage: is told the name of the stage that begins, at the host's own pace.
    """

    def __init__(
        self,
        components: Mapping[str, torch.nn.Module],
        steps: int,
        device: torch.device,
        calls: Sequence[int] | None = None,
        on_stage: OnStage | None = None,
    ) -> None:
        self.steps = steps
        self._calls = calls
        self._on_stage = on_stage
        self._new_mark = _mark_maker(device)
        self._marks: list[tuple[Place, Any]] = []
        self._handles: list[Any] = []
        self._attach(components)

    def __enter__(self) -> StageProbe:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def watch(self, on_stage: OnStage) -> None:
        """Tell this function, too, which stage begins."""
        self._on_stage = on_stage

    def open(self) -> None:
        """Forget the last window and mark the begin of the next."""
        self._marks = []
        self._mark("window")

    def spans(self) -> StageSpans | None:
        """The last window's stages, after the device has been synchronised; None without a denoiser."""
        if not self._marks:
            return None
        origin = self._marks[0][1]
        times: dict[Place, list[float]] = {}
        for place, mark in self._marks[1:]:
            times.setdefault(place, []).append(mark.since(origin))
        return self._resolve(times) if "denoise_in" in times else None

    def close(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _attach(self, components: Mapping[str, torch.nn.Module]) -> None:
        for name, module in components.items():
            if name.startswith("text_encoder"):
                self._hook(module, module, "text_in", "text_out")
            elif name in ("transformer", "unet"):
                self._hook(module, module, "denoise_in", "denoise_out")
            elif name == "vae":
                # decode() itself is no forward; its first part is post_quant_conv where there is one.
                parts = dict(module.named_children())
                last = parts.get("decoder", module)
                self._hook(parts.get("post_quant_conv", last), last, "vae_in", "vae_out")

    def _hook(self, first: Any, last: Any, entry: Place, leave: Place) -> None:
        def before(_module: Any, _inputs: Any) -> None:
            self._mark(entry)

        def after(_module: Any, _inputs: Any, _output: Any) -> None:
            self._mark(leave)

        self._handles.append(first.register_forward_pre_hook(before))
        self._handles.append(last.register_forward_hook(after))

    def _mark(self, place: Place) -> None:
        self._marks.append((place, self._new_mark()))
        if self._on_stage is not None:
            self._on_stage(place)

    def _resolve(self, times: dict[Place, list[float]]) -> StageSpans:
        decode = (times["vae_in"][0], times["vae_out"][-1]) if "vae_in" in times else None
        end = decode[0] if decode else times["denoise_out"][-1]
        steps, reason = self._step_begins(times["denoise_in"])
        return StageSpans(
            text=tuple(zip(times.get("text_in", []), times.get("text_out", []), strict=True)),
            steps=steps,
            denoise=(times["denoise_in"][0], end),
            decode=decode,
            step_reason=reason,
        )

    def _step_begins(self, entries: list[float]) -> tuple[tuple[float, ...] | None, str | None]:
        """First entry of the denoiser in each step, or None and why not."""
        calls, rest = divmod(len(entries), self.steps)
        if self._calls is not None and sum(self._calls) == len(entries):
            firsts = [sum(self._calls[:step]) for step in range(self.steps)]
            return tuple(entries[first] for first in firsts), None
        if self._calls is None and calls and not rest:
            return tuple(entries[::calls]), None
        expected = sum(self._calls) if self._calls is not None else f"a multiple of {self.steps}"
        return None, f"the denoiser was called {len(entries)} times where {expected} was expected"


def stage_times(spans: StageSpans, duration_s: float, postprocess_s: float) -> StageTimes:
    """Seconds of every stage; the steps sum to ``denoise_s``, all stages and ``other_s`` to the window."""
    begin, end = spans.denoise
    steps = None
    if spans.steps is not None:
        ends = (*spans.steps[1:], end)
        steps = tuple(after - before for before, after in zip(spans.steps, ends, strict=True))
    return StageTimes(
        text_encode_s=sum(after - before for before, after in spans.text),
        denoise_s=end - begin,
        denoise_step_s=steps,
        vae_decode_s=spans.decode[1] - spans.decode[0] if spans.decode else 0.0,
        other_s=duration_s - spans.stage_s,
        postprocess_s=postprocess_s,
        step_reason=spans.step_reason,
    )


class _HostMark:
    """The host's monotonic clock, where a forward returns only when it is done."""

    def __init__(self) -> None:
        self._time_s = time.monotonic()

    def since(self, origin: _HostMark) -> float:
        """Seconds after another mark."""
        return self._time_s - origin._time_s


class _EventMark:
    """An event in the device's stream: timed on the device, without waiting."""

    def __init__(self, event: Any) -> None:
        self._event = event
        event.record()

    def since(self, origin: _EventMark) -> float:
        """Seconds after another mark (the driver counts in milliseconds)."""
        return float(origin._event.elapsed_time(self._event)) / 1000.0


def _mark_maker(device: torch.device) -> Callable[[], Any]:
    import torch

    if device.type == "cuda":
        return lambda: _EventMark(torch.cuda.Event(enable_timing=True))
    if device.type == "mps":
        return lambda: _EventMark(torch.mps.Event(enable_timing=True))
    return _HostMark
