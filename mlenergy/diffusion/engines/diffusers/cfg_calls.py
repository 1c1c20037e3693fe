"""CFG-parallelism for pipelines whose guidance is a second call of the denoiser in each step.

Such a pipeline calls the denoiser with the prompt and then without it, and uses neither output before it has
both (Qwen-Image, FLUX.2 klein, Lumina 2, Wan, HunyuanVideo 1.5, in diffusers 0.42.1: they take a view of the
first output at most). So each of two ranks makes one of the two calls. The rank that leaves the first one out
gives the pipeline a tensor that is filled in the second, when the ranks exchange what they have.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist

# Denoisers that are given conditions behind the latents' channels (B, C, ...), and return the latents' alone.
_OUTPUT_CHANNELS = frozenset({"HunyuanVideo15Transformer3DModel"})


def share_guidance_calls(denoiser: torch.nn.Module, group: dist.ProcessGroup) -> None:
    """Let this rank make one of every two calls of `denoiser`: the first rank of the group the first ones.

    The class of the object is replaced by one of its own, so that hooks see the calls that are made, and not
    those that are left out.

    group: the two ranks that share the calls.
    """
    kind = type(denoiser)
    named = _OUTPUT_CHANNELS & {base.__name__ for base in kind.__mro__}
    calls = _SharedCalls(group, int(denoiser.config["out_channels"]) if named else None)  # type: ignore[index,operator]

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        return calls.next(lambda: kind.__call__(self, *args, **kwargs), args, kwargs)

    denoiser.__class__ = type(kind.__name__, (kind,), {"__call__": call, "__module__": kind.__module__})


class _SharedCalls:
    """The state of one denoiser's calls on one rank."""

    def __init__(self, group: dist.ProcessGroup, channels: int | None) -> None:
        self._group = group
        self._channels = channels  # of an output; None: as many as the latents have
        self._rank = dist.get_rank(group)
        self._first: torch.Tensor | None = None  # the output of a step's first call, between the two

    def next(self, make: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[torch.Tensor]:
        """The output of a call, made here or on the other rank; a first one's may be filled in the second.

        Raises:
            TypeError: the pipeline does not ask for a tuple, or its output is not like the latents.
        """
        latents = args[0] if args else kwargs["hidden_states"]
        latents = latents if self._channels is None else latents[:, : self._channels]
        is_first = self._first is None
        if is_first == (self._rank == 0):
            output = _only_tensor(make(), latents)
        else:
            output = torch.empty_like(latents, memory_format=torch.contiguous_format)
        if self._first is None:
            self._first = output
            return (output,)
        first, self._first = self._first, None
        if first.shape != output.shape:
            raise TypeError(
                "a step's two calls of the denoiser differ in shape: they are not the two of guidance"
            )
        own = first if self._rank == 0 else output
        both = own.new_empty((2, *own.shape))
        dist.all_gather_into_tensor(both, own.unsqueeze(0), group=self._group)
        if self._rank == 1:
            first.copy_(both[0])
        return (both[1],)


def _only_tensor(output: Any, latents: torch.Tensor) -> torch.Tensor:
    if not isinstance(output, tuple) or len(output) != 1:
        raise TypeError(
            f"the denoiser returned {type(output).__name__}; its pipeline must ask for a tuple of one"
        )
    tensor: torch.Tensor = output[0]
    if tensor.shape != latents.shape or tensor.dtype != latents.dtype:
        raise TypeError(
            f"the denoiser returned {tuple(tensor.shape)} of {tensor.dtype} for latents of "
            f"{tuple(latents.shape)} and {latents.dtype}: the other rank cannot know its shape"
        )
    return tensor.contiguous()
