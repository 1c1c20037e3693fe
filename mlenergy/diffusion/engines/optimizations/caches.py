"""Caches over steps: turned on, forgotten between images, and counted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from mlenergy.diffusion.config.optimizations import STEP_CACHES
from mlenergy.diffusion.engines.denoisers import denoisers
from mlenergy.diffusion.engines.optimizations.blocks import attention_layers, computing_blocks, feed_forwards
from mlenergy.diffusion.models.spec import CacheMethod

if TYPE_CHECKING:
    from mlenergy.diffusion.config.plan import Plan


class CacheWork:
    """One cache on each denoiser of a pipeline.

    Counted are the blocks of caches that skip whole steps, else the layers that the cache skips.
    """

    def __init__(self, pipeline: Any, plan: Plan) -> None:
        assert plan.optimizations.cache is not None
        self._method: CacheMethod = plan.optimizations.cache
        self._threshold = plan.optimizations.cache_threshold
        self._computed = {
            name: Computed(denoiser, _units(denoiser, self._method))
            for name, denoiser in denoisers(pipeline, plan.spec.family).items()
        }
        if plan.engine == "xdit":
            from mlenergy.diffusion.engines.optimizations.caches_xfuser import enable_cache
        else:
            from mlenergy.diffusion.engines.optimizations.caches_diffusers import enable_cache
        self._forget: Callable[[], None] = enable_cache(pipeline, plan)

    def begin_call(self) -> None:
        """Begin an image: nothing of the one before may be reused for it."""
        self._forget()
        for computed in self._computed.values():
            computed.begin_call()

    def record(self, warmup_calls: int) -> dict[str, Any]:
        """Method, threshold, and the share of the work that was really computed.

        denoisers: the same of each, where there are two.
        """
        each = {name: computed.counts(warmup_calls) for name, computed in self._computed.items()}
        total = {"method": self._method, "threshold": self._threshold, **self._shares(list(each.values()))}
        if len(each) == 1:
            return total
        return {**total, "denoisers": {name: self._shares([counts]) for name, counts in each.items()}}

    def _shares(self, counts: Sequence[_Counts]) -> dict[str, Any]:
        """Shares of the work of denoisers together; None where there was none."""
        rows = sum(one.rows for one in counts)
        steps = _share(sum(one.last_unit_rows for one in counts), rows)
        return {
            "denoiser_calls": sum(one.denoiser_calls for one in counts),
            "units": sum(one.units for one in counts),
            "computed_share": _share(
                sum(one.unit_rows for one in counts), sum(one.rows * one.units for one in counts)
            ),
            "computed_steps_share": steps if self._method in STEP_CACHES else None,
        }


def _units(denoiser: Any, method: CacheMethod) -> list[torch.nn.Module]:
    if method in STEP_CACHES:
        return computing_blocks(denoiser)
    attention = attention_layers(denoiser)
    if method == "taylorseer":
        return [*attention.values(), *feed_forwards(denoiser).values()]
    return list(attention.values())


@dataclass
class _Counts:
    """Denoiser calls, the rows that they brought, and the rows that its units computed."""

    units: int
    denoiser_calls: int = 0
    rows: int = 0
    unit_rows: int = 0
    last_unit_rows: int = 0


class Computed:
    """Counts the rows (of the batch) that each of `units` computes, against those that come in.

    The units' forwards are wrapped, not hooked: a cache's hook, put round the wrapper afterwards,
    then passes a unit by without its being counted, and compiled code stays inside of it.
    """

    def __init__(self, denoiser: torch.nn.Module, units: Sequence[torch.nn.Module]) -> None:
        self._units = len(units)
        self._calls: list[_Counts] = []
        denoiser.register_forward_pre_hook(self._on_denoiser, with_kwargs=True)
        for unit in units:
            self._wrap(unit, is_last=unit is units[-1])

    def begin_call(self) -> None:
        """Begin a generation."""
        self._calls.append(_Counts(self._units))

    def counts(self, warmup_calls: int) -> _Counts:
        """Sums over the calls after the first `warmup_calls`."""
        calls = self._calls[warmup_calls:]
        return _Counts(
            self._units,
            sum(call.denoiser_calls for call in calls),
            sum(call.rows for call in calls),
            sum(call.unit_rows for call in calls),
            sum(call.last_unit_rows for call in calls),
        )

    def _on_denoiser(self, _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._calls:
            self._calls[-1].denoiser_calls += 1
            self._calls[-1].rows += _rows(args, kwargs)

    def _wrap(self, unit: torch.nn.Module, is_last: bool) -> None:
        forward = unit.forward

        def counted(*args: Any, **kwargs: Any) -> Any:
            if self._calls:
                rows = _rows(args, kwargs)
                self._calls[-1].unit_rows += rows
                self._calls[-1].last_unit_rows += rows if is_last else 0
            return forward(*args, **kwargs)

        counted.__wrapped__ = forward  # type: ignore[attr-defined]  # processors read the signature
        unit.forward = counted


def _rows(args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    """The batch of the first tensor that has one."""
    return next(int(x.shape[0]) for x in (*args, *kwargs.values()) if torch.is_tensor(x) and x.ndim > 1)


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
