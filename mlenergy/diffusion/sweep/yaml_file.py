"""Reader of YAML and JSON that refuses what YAML would silently decide: which of two equal keys counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from mlenergy.diffusion.errors import UserError


def read_yaml(file: Path) -> Any:
    """The content of a YAML or JSON file.

    Raises:
        UserError: it cannot be read, is not valid, or gives a key twice; with the line.
    """
    try:
        return yaml.load(file.read_text(encoding="utf-8"), _Loader)
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}; name a sweep file") from None
    except _Mistake as mistake:
        raise UserError(f"{file}, {mistake}") from None
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{file} is not valid YAML: {reason}; fix it") from None


def yaml_value(text: str) -> Any:
    """The value that a text is in a YAML file: a number, true, a [list], or the text itself.

    Raises:
        UserError: it is not valid YAML.
    """
    try:
        return yaml.load(text, _Loader)
    except _Mistake as mistake:
        raise UserError(f"{text}: {mistake}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{text!r} is not valid YAML: {' '.join(str(error).split())}; quote it") from None


class _Mistake(Exception):
    """A mistake with its line."""


class _Loader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        lines: dict[Any, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _Mistake(f"line {_line(key)}: a key must be a text, not a list or a mapping")
            if key.value in lines and key.tag != "tag:yaml.org,2002:merge":
                first = lines[key.value]
                raise _Mistake(
                    f"line {_line(key)}: {key.value} is given twice, first in line {first}; keep one"
                )
            lines[key.value] = _line(key)
        return super().construct_mapping(node, deep)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> Any:
        # YAML 1.1 reads 12:00:00 as 43200 and 042 as 34; neither is what the writer of a sweep means.
        digits = node.value.lstrip("+-").replace("_", "")
        if ":" in node.value:
            return node.value
        if digits.isdigit() and digits != "0" and digits.startswith("0"):
            least = digits.lstrip("0") or "0"
            raise _Mistake(
                f"line {_line(node)}: YAML reads {node.value} to the base 8; write {least}, or '{node.value}'"
            )
        return super().construct_yaml_int(node)

    def construct_yaml_float(self, node: yaml.ScalarNode) -> Any:
        return node.value if ":" in node.value else super().construct_yaml_float(node)


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_yaml_float)
