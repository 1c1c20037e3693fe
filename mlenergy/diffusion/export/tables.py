"""CSV and Parquet: one row a result, every column of the index and the derived figures."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, fields
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet

from mlenergy.diffusion.export.derived import Prices, derived
from mlenergy.diffusion.export.runs import Export, Run
from mlenergy.diffusion.results.atomic import written_aside
from mlenergy.diffusion.results.index import schema
from mlenergy.diffusion.results.record import ResultRecord

_GROUP = 8192  # rows that are held at a time
_DERIVED = tuple(derived(ResultRecord(folder="", file="", state="complete"), Prices()))
# How a file looked when it was read is of use to the index alone.
_COLUMNS = tuple(one.name for one in fields(ResultRecord) if not one.name.startswith("source_"))


def write_csv(runs: Iterable[Run], out: Path, export: Export, prices: Prices) -> None:
    """Write a table as text. What is not known is an empty field.

    Raises:
        UserError: the file cannot be written.
    """
    with written_aside(out) as aside, aside.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, [*_COLUMNS, *_DERIVED])
        writer.writeheader()
        for row in _rows(runs, export, prices):
            writer.writerow({name: _harmless(value) for name, value in row.items()})


def write_parquet(runs: Iterable[Run], out: Path, export: Export, prices: Prices) -> None:
    """Write a typed table. What is not known is null.

    Raises:
        UserError: the file cannot be written.
    """
    columns = [one for one in schema() if one.name in _COLUMNS]
    columns += [pa.field(name, pa.float64()) for name in _DERIVED]
    kinds = pa.schema(columns)
    rows = _rows(runs, export, prices)
    with written_aside(out) as aside, parquet.ParquetWriter(aside, kinds, compression="zstd") as file:
        while group := list(islice(rows, _GROUP)):
            file.write_table(pa.Table.from_pylist(group, schema=kinds))


def _rows(runs: Iterable[Run], export: Export, prices: Prices) -> Iterator[Mapping[str, Any]]:
    for run in runs:
        record = asdict(run.record)
        export.written += 1
        yield {name: record[name] for name in _COLUMNS} | derived(run.record, prices)


def _harmless(value: Any) -> Any:
    """A text that no spreadsheet takes for a formula: one that begins like one gets an apostrophe (OWASP)."""
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return f"'{value}"
    return value
