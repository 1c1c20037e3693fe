"""Seconds and watts of an iteration from its work: one formula for every model, parallel mode and GPU.

A step is bound by the GPU or by the host that starts its kernels, whichever is slower. The GPU's time is
that of matrix products at a share of the card's peak (less for small matrices), of attention by its products
and its exponentials (slower for short sequences), of all other kernels by the bytes that they move, and of
what the parallel modes send and copy. Power is that of an idle GPU, and what each kind of work adds while it
lasts, up to the card's limit.

All functions take numbers, or numpy arrays of the same length (as the fit does).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

# Runs whose errors an interval is made of: runs: of images by models and GPUs that are in the fit; models: by
# a model that is not; gpus: on a GPU that is not; the other three: the same of videos.
Kind = Literal["runs", "models", "gpus", "videos", "video_models", "video_gpus"]
OF_VIDEOS: Mapping[Kind, Kind] = {"runs": "videos", "models": "video_models", "gpus": "video_gpus"}

_SHARP = 6  # how sharply the slower of GPU and host decides; a maximum without a corner
_OVERLAP = 4  # the same for attention and the ring's transfers


@dataclass(frozen=True)
class Constant:
    """One fitted number: unit, and the value that is expected where the data does not tell.

    spread: standard deviation of the expectation, as a share (natural logarithm).
    """

    unit: str
    meaning: str
    expected: float
    spread: float
    least: float
    most: float


TIME: dict[str, Constant] = {
    "matmul_share": Constant("1", "share of the peak that large products reach", 0.65, 0.15, 0.3, 0.85),
    "matmul_side": Constant("elements", "smaller side of a weight that halves the rate", 100, 0.7, 1, 800),
    "matmul_rows": Constant("rows", "rows of a product that halve the rate", 100, 1, 1, 3000),
    "score_rate": Constant("1/s", "exponentials of attention", 0.9e12, 0.5, 1e11, 1e13),
    "attention_share": Constant("1", "share of the peak that its products reach", 0.6, 0.3, 0.2, 0.95),
    "attention_tokens": Constant("tokens", "sequence that halves attention's rate", 500, 1, 1, 20000),
    "memory_share": Constant("1", "share of the bandwidth that other kernels reach", 0.8, 0.15, 0.3, 0.95),
    "launch_s": Constant("s", "host time to start a kernel", 1e-5, 0.7, 1e-6, 6e-5),
    "image_s": Constant("s", "host time for each image after its decode", 0.05, 0.7, 0.001, 0.3),
    "video_pixel_s": Constant("s", "host time for each pixel of a video", 1e-7, 1, 1e-10, 1e-5),
    "video_decode": Constant("1", "seconds of a decoder of videos ÷ those of its kernels", 1, 0.5, 0.2, 10),
    "call_s": Constant("s", "host time for each iteration", 0.02, 1, 1e-4, 0.3),
    "ulysses_bytes_per_s": Constant("B/s", "all-to-all of one GPU", 1.5e11, 0.5, 2e10, 4.5e11),
    "ulysses_s": Constant("s", "latency of the exchanges of an attention", 5e-5, 1, 1e-6, 5e-4),
    "ulysses_host_s": Constant("s", "host time for them", 1e-4, 1, 1e-6, 1e-3),
    "ring_bytes_per_s": Constant("B/s", "key and value blocks sent by one GPU", 1e11, 0.5, 2e10, 4.5e11),
    "ring_s": Constant("s", "latency of a ring's exchange", 5e-5, 1, 1e-6, 5e-4),
    "ring_host_s": Constant("s", "host time for it", 1e-4, 1, 1e-6, 1e-3),
    "ring_merge": Constant("1", "bytes to merge a block's output, ÷ 4 × the queries'", 2, 0.7, 0.1, 20),
}  # fmt: skip
POWER: dict[str, Constant] = {
    "base_w": Constant("W", "GPU that waits with a model loaded", 120, 0.2, 60, 300),
    "matmul_w": Constant("W", "added by matrix products", 550, 0.3, 100, 2400),
    "attention_w": Constant("W", "added by attention", 450, 0.3, 50, 1800),
    "memory_w": Constant("W", "added by other kernels", 350, 0.3, 50, 1800),
    "link_w": Constant("W", "added by transfers between GPUs", 150, 0.5, 10, 900),
}


@dataclass(frozen=True)
class Card:
    """A GPU as its data sheet has it."""

    name: str
    flops_per_s: Any  # dense, of the denoiser's type
    bytes_per_s: Any
    exponentials_per_s: Any
    power_w: Any


@dataclass(frozen=True)
class Terms:
    """Seconds of one stage's work by kind, of the busiest GPU and of the host that starts its kernels.

    copied_s: of copies that the parallel modes need.
    """

    matmul_s: Any
    attention_s: Any
    elementwise_s: Any
    copied_s: Any
    link_s: Any
    host_s: Any

    @property
    def gpu_s(self) -> Any:
        """Seconds of the GPU."""
        return self.matmul_s + self.attention_s + self.elementwise_s + self.copied_s + self.link_s

    @property
    def duration_s(self) -> Any:
        """Seconds of the slower of GPU and host."""
        return _slower(self.gpu_s, self.host_s, _SHARP)


@dataclass(frozen=True)
class Times:
    """Seconds of one iteration, and those of full work on a GPU, by kind of work (mean of all GPUs)."""

    duration_s: Any
    step_s: Any
    text_s: Any
    decode_s: Any
    matmul_s: Any
    attention_s: Any
    elementwise_s: Any
    link_s: Any


def times_of(work: Any, card: Card, constants: Any, model_factor: Any = 1.0) -> Times:
    """Seconds of an iteration.

    Args:
        work: an `IterationWork`, or an object of the same attributes with arrays.
        card: the GPU.
        constants: by the names of `TIME`.
        model_factor: seconds of this model's kernels over those of the formula.
    """
    c = constants
    text, step, decode = terms_of(work, card, c, model_factor)
    of_video = _of_video(work, c)
    # Power follows the arithmetic: small matrices and short sequences leave units idle.
    busy = [
        work.steps * model_factor * of_step + of_text + of_video * of_decode * work.decoding_gpus / work.gpus
        for of_step, of_text, of_decode in zip(
            _at_full_rate(work.step, card, c),
            _at_full_rate(work.text, card, c),
            _at_full_rate(work.decode, card, c),
            strict=True,
        )
    ]
    denoise_s = work.steps * step.duration_s
    after = work.images * c["image_s"] + work.video_pixels * c["video_pixel_s"]
    return Times(
        duration_s=c["call_s"] + denoise_s + text.duration_s + decode.duration_s + after,
        step_s=step.duration_s,
        text_s=text.duration_s,
        decode_s=decode.duration_s,
        matmul_s=busy[0],
        attention_s=busy[1],
        elementwise_s=busy[2] + work.steps * step.copied_s,
        link_s=work.steps * step.link_s,
    )


def terms_of(work: Any, card: Card, constants: Any, model_factor: Any = 1.0) -> tuple[Terms, Terms, Terms]:
    """Seconds by kind of work: of the text encoders, of one denoising step, of the decoder. As `times_of`."""
    c = constants
    matmul, attention, elementwise = (model_factor * part for part in _kernels(work.step, card, c))
    attention = attention * (1 + c["attention_tokens"] / work.sequence_tokens)
    has_ulysses, has_ring = work.ulysses > 1, work.ring > 1
    sent = has_ring * work.ring_bytes / c["ring_bytes_per_s"]
    not_hidden = _slower(attention, sent, _OVERLAP) - attention
    memory = c["memory_share"] * card.bytes_per_s
    merged = work.ring * c["ring_merge"] * 4 * work.query_bytes / 2 / memory
    exchanged = work.ulysses_bytes / c["ulysses_bytes_per_s"] + work.attentions * c["ulysses_s"]
    copied = has_ulysses * 4 * work.query_bytes / memory + has_ring * merged
    link = (
        not_hidden
        + has_ulysses * exchanged
        + has_ring * (work.ring - 1) * work.attentions * c["ring_s"]
        + work.other_bytes / c["ulysses_bytes_per_s"]
    )
    host = (
        model_factor * work.step.kernels * c["launch_s"]
        + has_ulysses * work.attentions * c["ulysses_host_s"]
        + has_ring * work.ring * work.attentions * c["ring_host_s"]
    )
    step = Terms(matmul, attention, elementwise, copied, link, host)
    text = Terms(*_kernels(work.text, card, c), 0.0, 0.0, work.text.kernels * c["launch_s"])
    of_video = _of_video(work, c)
    products, scores, others = (of_video * part for part in _kernels(work.decode, card, c))
    return text, step, Terms(products, scores, others, 0.0, 0.0, work.decode.kernels * c["launch_s"])


def power_of(times: Times, card: Card, constants: Any) -> Any:
    """Mean power of one GPU in an iteration, in W."""
    c = constants
    added = (
        times.matmul_s * c["matmul_w"]
        + times.attention_s * c["attention_w"]
        + times.elementwise_s * c["memory_w"]
        + times.link_s * c["link_w"]
    )
    return _less(c["base_w"] + added / times.duration_s, card.power_w)


def _kernels(work: Any, card: Card, c: Any) -> tuple[Any, Any, Any]:
    """Seconds of matrix products, of attention and of all other kernels on the GPU."""
    matmul, attention, elementwise = _at_full_rate(work, card, c)
    wasted = c["matmul_side"] * work.matmul_flops_per_side + c["matmul_rows"] * work.matmul_flops_a_row
    return matmul + wasted / (c["matmul_share"] * card.flops_per_s), attention, elementwise


def _at_full_rate(work: Any, card: Card, c: Any) -> tuple[Any, Any, Any]:
    """The same, if matrices and sequences were large."""
    attention = (
        work.attention_flops / (c["attention_share"] * card.flops_per_s)
        + work.attention_scores / c["score_rate"]
    )
    return (
        work.matmul_flops / (c["matmul_share"] * card.flops_per_s),
        attention,
        work.elementwise_bytes / (c["memory_share"] * card.bytes_per_s),
    )


def _of_video(work: Any, c: Any) -> Any:
    """Factor of a decoder's kernels."""
    return 1 + (work.video_pixels > 0) * (c["video_decode"] - 1)


def _slower(one: Any, other: Any, sharpness: float) -> Any:
    return (one**sharpness + other**sharpness) ** (1 / sharpness)


def _less(one: Any, other: Any) -> Any:
    return (one**-8.0 + other**-8.0) ** (-1 / 8.0)
