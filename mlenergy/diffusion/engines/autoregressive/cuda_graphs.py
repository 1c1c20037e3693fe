"""CUDA graphs of a model's forwards: the kernels of a call are recorded once, and later calls replay them.

A model that predicts scales launches hundreds of small kernels a scale, each with the shapes of that scale in
every generation: at small batches a GPU waits for the host. A forward is replaced, not hooked, so that the
hooks of the stage times stay around it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

_WARM_UP_CALLS = 2  # libraries choose kernels and workspaces, which may not happen while recording

Forward = Callable[..., torch.Tensor]
# Runs a function of no arguments and records it: its output, and what writes a new output in the same place.
Record = Callable[[Callable[[], torch.Tensor]], tuple[torch.Tensor, Callable[[], None]]]


@dataclass
class _Recording:
    inputs: list[torch.Tensor]
    output: torch.Tensor
    replay: Callable[[], None]
    held: tuple[Any, ...]  # other arguments, whose tensors the kernels read where they are


class RecordedForward:
    """A forward whose calls are replayed.

    Tensors among its arguments are copied to where the recording reads them. Tensors inside of others (the
    cache) are read and written where they are, so these have to be the same objects in every generation.
    An output is valid until the next call of its kind.
    """

    def __init__(self, forward: Forward, record: Record) -> None:
        self.is_on = True
        self.replays = 0
        self._forward, self._record = forward, record
        self._recordings: dict[tuple[Any, ...], _Recording] = {}

    @property
    def graphs(self) -> int:
        """Recordings so far: one a scale and shape."""
        return len(self._recordings)

    def __call__(self, *args: Any) -> torch.Tensor:
        """The forward's output; the first call of a kind is recorded."""
        if not self.is_on:
            return self._forward(*args)
        key = tuple(_kind(arg) for arg in args)
        given = [arg for arg in args if isinstance(arg, torch.Tensor)]
        recording = self._recordings.get(key)
        if recording is None:
            recording = self._recordings[key] = self._recorded(args)
        for place, value in zip(recording.inputs, given, strict=True):
            place.copy_(value)
        recording.replay()
        self.replays += 1
        return recording.output

    def _recorded(self, args: tuple[Any, ...]) -> _Recording:
        own = [arg.clone() if isinstance(arg, torch.Tensor) else arg for arg in args]
        output, replay = self._record(lambda: self._forward(*own))
        inputs = [arg for arg in own if isinstance(arg, torch.Tensor)]
        return _Recording(inputs, output, replay, args)


def _kind(arg: Any) -> Any:
    if isinstance(arg, torch.Tensor):
        return tuple(arg.shape), arg.dtype
    return arg if isinstance(arg, (int, float, str, bool, type(None))) else id(arg)


class GraphRecorder:
    """Records on the current CUDA device; all graphs share one pool of memory, for they run one at a time."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, call: Callable[[], torch.Tensor]) -> tuple[torch.Tensor, Callable[[], None]]:
        """See `Record`."""
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(_WARM_UP_CALLS):
                call()
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            output = call()
        return output, graph.replay


class GraphWork:
    """CUDA graphs of one model: of its transformer at every scale, and of its decoder."""

    def __init__(self, transformer: torch.nn.Module, decoder: torch.nn.Module, record: Record) -> None:
        self._forwards = []
        for module in (transformer, decoder):
            recorded = RecordedForward(module.forward, record)
            module.__dict__["forward"] = recorded
            self._forwards.append(recorded)

    def turn(self, is_on: bool) -> None:
        """Replay from now on, or call the forwards as they are."""
        for forward in self._forwards:
            forward.is_on = is_on

    def record(self) -> dict[str, int]:
        """Graphs that were recorded, and how often one was replayed; plain data."""
        return {
            "graphs": sum(forward.graphs for forward in self._forwards),
            "replays": sum(forward.replays for forward in self._forwards),
        }
