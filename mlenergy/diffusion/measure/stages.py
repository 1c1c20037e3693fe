"""Stage times by hooks on the pipeline's components; no forward is edited."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlenergy.diffusion.measure.samples import DenoiserWork, StageTimes, WindowPart
from mlenergy.diffusion.models.spec import STAGES, Stage

if TYPE_CHECKING:
    import torch

Interval = tuple[float, float]  # begin and end, in seconds
OnStage = Callable[[WindowPart], None]


@dataclass(frozen=True)
class StageSpans:
    """Spans of the stages of one window on one rank, in seconds since the window's begin.

    intervals: stage -> every time that it ran; a stage that this rank has no part in is absent.
        Text encoding: entry to exit of every call of an encoder. Denoising: first entry of the
        denoiser to the entry of the VAE (to the denoiser's last exit on ranks that do not decode).
        Decoding: entry of the VAE's decode to its last exit, the blending of tiles included, with casts of
        the VAE to another type before and after it (SDXL in float16).
    step_begins: first entry of the denoiser in every step; None where its calls do not fit the steps.
    step_reason: why ``step_begins`` is None.
    work: what the denoiser was given.
    """

    intervals: Mapping[Stage, tuple[Interval, ...]]
    step_begins: tuple[float, ...] | None
    step_reason: str | None = None
    work: DenoiserWork | None = None

    def seconds(self, stage: Stage) -> float:
        """Seconds of one stage; 0 where this rank has no part in it."""
        return sum(end_s - begin_s for begin_s, end_s in self.intervals.get(stage, ()))

    @property
    def total_s(self) -> float:
        """Seconds of all stages together."""
        return sum(self.seconds(stage) for stage in self.intervals)


class StageProbe:
    """Hooks that mark, on the device's own clock, when each component is entered and left.

    On CUDA a mark is an event in the stream, so that the hooks neither wait nor make the
    host wait; on a CPU, where a forward returns when it is done, it is the host's clock.
    The hooks are in place inside the probe's ``with`` block only.

    Args:
        components: name -> module, as an engine's ``components()`` gives them.
        stages: name -> stage, as ``Family.stages`` gives them; other components get no hooks.
        steps: denoising steps of one window.
        device: the device that the components run on.
        calls_per_step: how often the denoiser is called in each step, one number a step, where
            that is known and uneven (PipeFusion); None: evenly.
    """

    def __init__(
        self,
        components: Mapping[str, torch.nn.Module],
        stages: Mapping[str, Stage],
        steps: int,
        device: torch.device,
        calls_per_step: Sequence[int] | None = None,
    ) -> None:
        self.steps = steps
        self._modules = [(stages[name], module) for name, module in components.items() if name in stages]
        self._calls_per_step = calls_per_step
        self._new_mark = _mark_maker(device)
        self._on_stage: OnStage | None = None
        self._handles: list[Any] = []
        self._cast_modules: list[Any] = []
        self._decoders: list[tuple[Any, Any]] = []  # VAE, and the decode that was set on it, if any
        self._is_decoding = False
        self._begin: Any = None
        self._entries: dict[Stage, list[Any]] = {stage: [] for stage in STAGES}
        self._exits: dict[Stage, list[Any]] = {stage: [] for stage in STAGES}
        self._rows = self._elements = self._text_tokens = 0

    def __enter__(self) -> StageProbe:
        for stage, module in self._modules:
            first = last = module
            if stage == "vae_decode":
                # A pipeline calls decode(), which is no forward and runs no hooks: it is marked by itself,
                # with the blending of tiles that follows the decoder. Where a pipeline calls its parts,
                # these run hooks: post_quant_conv, in VAEs that have one, then the decoder.
                parts = dict(module.named_children())
                last = parts.get("decoder", module)
                first = parts.get("post_quant_conv", last)
            before, after = self._marks(stage)
            self._handles.append(first.register_forward_pre_hook(before, with_kwargs=True))
            self._handles.append(last.register_forward_hook(after))
            if stage == "vae_decode":
                module.__dict__["to"] = _with_marks_at_casts(module.to, before, after)
                self._cast_modules.append(module)
                decode: Any = getattr(module, "decode", None)
                if callable(decode):
                    self._decoders.append((module, module.__dict__.get("decode")))
                    module.__dict__["decode"] = self._marked_decode(decode, before, after)
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()
        for module in self._cast_modules:
            del module.__dict__["to"]
        for module, decode in self._decoders:
            if decode is None:
                del module.__dict__["decode"]
            else:
                module.__dict__["decode"] = decode
        self._handles, self._cast_modules, self._decoders = [], [], []

    def watch(self, on_stage: OnStage) -> None:
        """Tell ``on_stage`` which part of a window begins, at the host's own pace."""
        self._on_stage = on_stage

    def open(self) -> None:
        """Forget the last window's marks and mark the begin of the next window."""
        for stage in STAGES:
            self._entries[stage].clear()
            self._exits[stage].clear()
        self._rows = self._elements = self._text_tokens = 0
        self._begin = self._new_mark()

    def spans(self) -> StageSpans | None:
        """The last window's stages, after the device has been synchronised; None without a denoiser."""
        if self._begin is None or not self._entries["denoise"]:
            return None
        entries = {stage: [mark.since(self._begin) for mark in self._entries[stage]] for stage in STAGES}
        exits = {stage: [mark.since(self._begin) for mark in self._exits[stage]] for stage in STAGES}
        intervals: dict[Stage, tuple[Interval, ...]] = {}
        if entries["text_encode"]:
            intervals["text_encode"] = tuple(zip(entries["text_encode"], exits["text_encode"], strict=True))
        # The scheduler's part of the last step comes after the denoiser's last exit: denoising ends
        # where decoding begins.
        end_s = entries["vae_decode"][0] if entries["vae_decode"] else exits["denoise"][-1]
        intervals["denoise"] = ((entries["denoise"][0], end_s),)
        if entries["vae_decode"]:
            intervals["vae_decode"] = ((end_s, exits["vae_decode"][-1]),)
        work = DenoiserWork(len(entries["denoise"]), self._rows, self._elements, self._text_tokens or None)
        return StageSpans(intervals, *self._step_begins(entries["denoise"]), work)

    def _marks(self, stage: Stage) -> tuple[Callable[..., None], Callable[..., None]]:
        """Functions to call where a stage's work begins, and where it ends."""
        # Between the denoiser's calls the scheduler works, which is denoising too.
        following: WindowPart = "denoise" if stage == "denoise" else "other"

        def before(*called: Any) -> None:  # of a forward: the module, its inputs, and those with names
            if self._is_decoding:
                return  # a part of a decode that is marked as a whole
            self._entries[stage].append(self._new_mark())
            if stage == "denoise":
                for latents, rows in _latents_of(*called[1:]):
                    self._rows += rows
                    self._elements += latents.numel()
                self._text_tokens += _text_tokens_of(*called[1:])
            if self._on_stage is not None:
                self._on_stage(stage)

        def after(*_: Any) -> None:
            if self._is_decoding:
                return
            self._exits[stage].append(self._new_mark())
            if self._on_stage is not None:
                self._on_stage(following)

        return before, after

    def _marked_decode(
        self, decode: Callable[..., Any], before: Callable[[], None], after: Callable[[], None]
    ) -> Callable[..., Any]:
        @functools.wraps(decode)
        def marked(*args: Any, **options: Any) -> Any:
            before()
            self._is_decoding = True
            try:
                return decode(*args, **options)
            finally:
                self._is_decoding = False
                after()

        return marked

    def _step_begins(self, entries: list[float]) -> tuple[tuple[float, ...] | None, str | None]:
        """First entry of the denoiser in each step, or None and the reason."""
        counts = self._calls_per_step
        calls, rest = divmod(len(entries), self.steps)
        if counts is not None and sum(counts) == len(entries):
            return tuple(entries[sum(counts[:step])] for step in range(self.steps)), None
        if counts is None and calls and not rest:
            return tuple(entries[::calls]), None
        expected = f"a multiple of {self.steps}" if counts is None else sum(counts)
        return None, f"the denoiser was called {len(entries)} times where {expected} was expected"


def _latents_of(inputs: tuple[Any, ...], named: Mapping[str, Any]) -> list[tuple[Any, int]]:
    """The first argument of a denoiser's call, its latents, and their rows; Z-Image lists its rows."""
    first = inputs[0] if inputs else named.get("hidden_states", named.get("sample"))
    if isinstance(first, list):
        return [(row, 1) for row in first if hasattr(row, "numel")]
    return [(first, first.shape[0])] if hasattr(first, "numel") else []


def _text_tokens_of(inputs: tuple[Any, ...], named: Mapping[str, Any]) -> int:
    """Tokens of the text among a denoiser's arguments, over its rows; Z-Image lists them third."""
    text = named.get("encoder_hidden_states", inputs[2] if len(inputs) > 2 else None)
    if isinstance(text, list):
        return sum(len(row) for row in text if hasattr(row, "numel"))
    return int(text.shape[0] * text.shape[1]) if hasattr(text, "shape") and len(text.shape) > 1 else 0


def stage_times(spans: StageSpans, duration_s: float, postprocess_s: float) -> StageTimes:
    """Seconds of every stage; the steps sum to ``denoise_s``, all stages and ``other_s`` to the window."""
    steps = None
    if spans.step_begins is not None:
        ((_, end_s),) = spans.intervals["denoise"]
        ends_s = (*spans.step_begins[1:], end_s)
        steps = tuple(after - before for before, after in zip(spans.step_begins, ends_s, strict=True))
    return StageTimes(
        text_encode_s=spans.seconds("text_encode"),
        denoise_s=spans.seconds("denoise"),
        denoise_step_s=steps,
        vae_decode_s=spans.seconds("vae_decode"),
        other_s=duration_s - spans.total_s,
        postprocess_s=postprocess_s,
        step_reason=spans.step_reason,
    )


def _with_marks_at_casts(
    to: Callable[..., Any], before: Callable[[], None], after: Callable[[], None]
) -> Callable[..., Any]:
    """A module's `to` that marks changes of its type; moves between devices (offloading) are no decoding."""
    import torch

    def marked(*args: Any, **options: Any) -> Any:
        if not any(isinstance(value, torch.dtype) for value in (*args, *options.values())):
            return to(*args, **options)
        before()
        moved = to(*args, **options)
        after()
        return moved

    return marked


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
        """Seconds after another mark."""
        return float(origin._event.elapsed_time(self._event)) / 1000.0  # torch gives milliseconds


def _mark_maker(device: torch.device) -> Callable[[], Any]:
    import torch

    if device.type == "cuda":
        return lambda: _EventMark(torch.cuda.Event(enable_timing=True))
    if device.type == "mps":
        return lambda: _EventMark(torch.mps.Event(enable_timing=True))
    return _HostMark
