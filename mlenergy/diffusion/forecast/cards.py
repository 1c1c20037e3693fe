"""GPUs by their data sheets: peak, memory, power limit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

from mlenergy.diffusion.config.option import nearest
from mlenergy.diffusion.cost.efficiency import dense_peak
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.forecast.formula import Card

MIB = 1 << 20
_GIGA, _TERA = 1e9, 1e12


def card_named(name: str, dtype: str = "bfloat16") -> Card:
    """A card by its short name (H100) or the driver's (NVIDIA H100 80GB HBM3).

    Raises:
        UserError: it is not in the table, or has no peak of this type.
    """
    sheet = _sheet(name)
    peak = dense_peak(sheet["driver_names"][0], dtype)
    if peak.tflops is None:
        raise UserError(f"no time can be forecast in {dtype} on {sheet['name']}: {peak.reason}")
    return Card(
        name=sheet["name"],
        flops_per_s=peak.tflops * _TERA,
        bytes_per_s=sheet["memory_tb_per_s"] * _TERA,
        exponentials_per_s=(
            sheet["exponentials_per_clock"] * sheet["multiprocessors"] * sheet["clock_ghz"] * _GIGA
        ),
        power_w=float(sheet["power_w"]),
    )


def memory_bytes(name: str) -> float:
    """Bytes of memory of a card."""
    return float(_sheet(name)["memory_mib"] * MIB)


def has_nvlink(name: str) -> bool:
    """True for a card with NVLink: the links between others have no figure that a forecast could take."""
    return _sheet(name)["nvlink_tb_per_s"] is not None


def card_names() -> tuple[str, ...]:
    """Short names, in the order of the table."""
    return tuple(sheet["name"] for sheet in _sheets())


def _sheet(name: str) -> Mapping[str, Any]:
    for sheet in _sheets():
        if name.upper() == sheet["name"] or name in sheet["driver_names"]:
            return sheet
    meant = nearest(name.upper(), card_names())
    hint = f"did you mean {meant}?" if meant else f"use one of {', '.join(card_names())}"
    raise UserError(f"no data sheet of a GPU {name!r} is known; {hint}")


@cache
def _sheets() -> tuple[Mapping[str, Any], ...]:
    text = (resources.files("mlenergy.diffusion") / "data" / "gpu_hardware.json").read_text("utf-8")
    return tuple(json.loads(text)["gpus"])
