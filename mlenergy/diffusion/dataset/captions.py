"""Captions: one column, or several composed by a template."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from string import Formatter
from typing import Any

from mlenergy.diffusion.errors import UserError


class UnusableRow(Exception):
    """A row that gives no image or no caption; its text says why."""


def fields_of(template: str) -> tuple[str, ...]:
    """Columns that a template names, each once, in order.

    Raises:
        UserError: it names none, or is not of the form `{column} text {column}`.
    """
    advice = 'write columns in braces, as in "{style} painting by {artist}"'
    try:
        parts = list(Formatter().parse(template))
    except ValueError as error:
        raise UserError(f"--caption_template {template!r} cannot be read ({error}); {advice}") from None
    names = [name for _, name, _, _ in parts if name is not None]
    if not names:
        raise UserError(f"--caption_template {template!r} names no column; {advice}")
    for _, name, spec, conversion in parts:
        if name is not None and (not name.isidentifier() or spec or conversion):
            raise UserError(f"--caption_template {template!r}: {{{name}}} is no plain column; {advice}")
    return tuple(dict.fromkeys(names))


def check_columns(where: str, needed: Iterable[str], columns: Sequence[str], option: str) -> None:
    """Refuse columns that a source lacks.

    Raises:
        UserError: with the columns that there are, and the option that names them.
    """
    for name in needed:
        if name not in columns:
            known = ", ".join(sorted(columns)) or "none"
            raise UserError(f"{where} has no column {name!r}; set {option} out of: {known}")


def caption_of(
    row: Mapping[str, Any],
    column: str,
    template: str | None,
    labels: Mapping[str, Sequence[str]],
    *,
    plain_labels: bool,
) -> str:
    """The caption of a row.

    Args:
        row: values by column.
        column: that holds captions, where there is no template.
        template: composed of columns.
        labels: names of classes, for columns that hold their numbers.
        plain_labels: write names of classes with spaces for `_` and `-`.

    Raises:
        UnusableRow: a value is missing, empty or not text.
    """
    names = (column,) if template is None else fields_of(template)
    texts = {name: _text(name, row[name], labels.get(name), plain_labels) for name in names}
    caption = texts[column] if template is None else template.format(**texts)
    return " ".join(caption.split())


def _text(name: str, value: Any, classes: Sequence[str] | None, plain_labels: bool) -> str:
    if classes is not None and isinstance(value, int):
        if not 0 <= value < len(classes):  # datasets writes -1 for a class that is not known
            raise UnusableRow(f"{name} {value} is none of its {len(classes)} classes")
        label = classes[value]
        return label.replace("_", " ").replace("-", " ") if plain_labels else label
    if isinstance(value, list):  # several captions of one image: the first
        value = value[0] if value else None
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        value = str(value)
    if value is None or (isinstance(value, str) and not value.strip()):
        raise UnusableRow(f"{name} is empty")
    if not isinstance(value, str):
        raise UnusableRow(f"{name} is a {type(value).__name__}, not text")
    return value
