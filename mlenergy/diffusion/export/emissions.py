"""CodeCarbon's table, from measured energy and a grid factor that the user gives."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mlenergy.diffusion.export.derived import J_PER_KWH
from mlenergy.diffusion.export.runs import Export, Run
from mlenergy.diffusion.results.atomic import written_aside

# The columns of emissions.csv in CodeCarbon 3, in its order.
COLUMNS = (
    *("timestamp", "project_name", "run_id", "experiment_id", "duration", "emissions", "emissions_rate"),
    *("cpu_power", "gpu_power", "ram_power", "cpu_energy", "gpu_energy", "ram_energy", "energy_consumed"),
    *("water_consumed", "country_name", "country_iso_code", "region", "cloud_provider", "cloud_region", "os"),
    *("python_version", "codecarbon_version", "cpu_count", "cpu_model", "gpu_count", "gpu_model"),
    *("longitude", "latitude", "ram_total_size", "tracking_mode", "cpu_utilization_percent"),
    *("gpu_utilization_percent", "ram_utilization_percent", "ram_used_gb", "on_cloud", "pue", "wue"),
)
_NO_ENERGY = "its energy is not known"


def write_emissions(runs: Iterable[Run], out: Path, export: Export, grid_g_per_kwh: float) -> None:
    """Write a row for every run whose GPU energy was measured; what is not known is an empty field.

    Args:
        runs: complete results.
        out: the file, which CodeCarbon calls emissions.csv.
        export: takes note of what cannot be written.
        grid_g_per_kwh: grams of CO2 equivalent that a kilowatt-hour of the user's electricity causes.

    Raises:
        UserError: the file cannot be written.
    """
    with written_aside(out) as aside, aside.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, COLUMNS, restval="")
        writer.writeheader()
        for run in runs:
            row = emissions_row(run, grid_g_per_kwh)
            if row is None:
                reason = run.record.energy_reason
                export.leave_out(run.record, f"{_NO_ENERGY}: {reason}" if reason else _NO_ENERGY)
            else:
                export.written += 1
                writer.writerow(row)


def emissions_row(run: Run, grid_g_per_kwh: float) -> dict[str, Any] | None:
    """A run as CodeCarbon writes it: energies in kWh, emissions in kg, powers in W; None without energy.

    Over the measured windows alone. `energy_consumed` is the sum of the parts that were measured: the GPUs,
    and the CPU packages and memory where they could be read. No share is estimated. `pue` is 1: nothing is
    added for cooling.
    """
    record = run.record
    if record.energy_total_j is None or record.generation_time_s is None:
        return None
    measured = run.content.get("energy_measurement") or {}
    parts_j = {
        "gpu": record.energy_total_j,
        "cpu": measured.get("cpu_package_j"),
        "ram": measured.get("dram_j"),
    }
    known_j = {name: joules for name, joules in parts_j.items() if joules is not None}
    consumed_kwh = sum(known_j.values()) / J_PER_KWH
    emissions_kg = consumed_kwh * grid_g_per_kwh / 1000
    duration_s = record.generation_time_s
    environment = run.content.get("environment") or {}
    nodes: list[Mapping[str, Any]] = environment.get("nodes") or []
    return {
        "timestamp": record.date,
        "project_name": "mlenergy-diffusion",
        "run_id": record.folder,
        "experiment_id": record.setup_digest,
        "duration": duration_s,
        "emissions": emissions_kg,
        "emissions_rate": emissions_kg / duration_s,
        **{f"{name}_power": joules / duration_s for name, joules in known_j.items()},
        **{f"{name}_energy": joules / J_PER_KWH for name, joules in known_j.items()},
        "energy_consumed": consumed_kwh,
        "os": environment.get("platform"),
        "python_version": environment.get("python"),
        "cpu_count": sum(node.get("cpu_cores") or 0 for node in nodes) or None,
        "cpu_model": nodes[0].get("cpu") if nodes else None,
        "gpu_count": len(measured.get("gpus") or ()) or None,
        "gpu_model": record.gpu_names,
        "ram_total_size": sum(node.get("memory_bytes") or 0 for node in nodes) / 2**30 or None,
        "tracking_mode": "machine",
        "pue": 1.0,
    }
