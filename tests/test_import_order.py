"""Which room may import which, kept as a table; `TYPE_CHECKING` counts as an import."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "mlenergy" / "diffusion"
NAME = "mlenergy.diffusion"

# A room imports only rooms of earlier rows, and itself.
ORDER: tuple[tuple[str, ...], ...] = (
    ("errors", "engine", "version"),
    ("models", "environment", "distributed"),
    ("config", "measure"),
    ("prompts", "weights"),
    ("engines", "cost", "quality"),
    ("results",),
    ("forecast",),
    ("report", "supervision", "export", "dataset"),
    ("executors", "run", "training"),
    ("sweep", "tune"),
    ("studies",),
    ("interface",),
    ("benchmark",),
    ("cli",),
    ("__main__",),
)
LEVEL = {room: level for level, rooms in enumerate(ORDER) for room in rooms}
LEVEL[""] = len(ORDER)  # the package itself hands out the Python interface
FILES = sorted(PACKAGE.rglob("*.py"))


def module_of(file: Path) -> str:
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    return ".".join((NAME, *(parts[:-1] if parts[-1] == "__init__" else parts)))


MODULES = {module_of(file): file for file in FILES}


def imported(file: Path) -> set[str]:
    """Modules of this package that a file imports, wherever in the file it does so."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            found |= {
                inner if (inner := f"{node.module}.{name.name}") in MODULES else str(node.module)
                for name in node.names
            }
    return {module for module in found if module in MODULES} - {module_of(file)}


def room_of(module: str) -> str:
    return module.removeprefix(f"{NAME}.").partition(".")[0] if module != NAME else ""


def test_every_room_has_a_place():
    assert {room_of(module) for module in MODULES} == set(LEVEL)


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_file_imports_from_earlier_rooms_only(module):
    own = room_of(module)
    wrong = [
        other
        for other in imported(MODULES[module])
        if room_of(other) != own and LEVEL[room_of(other)] >= LEVEL[own]
    ]
    assert not wrong, f"{module} imports {', '.join(sorted(wrong))}"


def test_no_files_import_each_other_in_a_circle():
    arrows = {module: imported(file) for module, file in MODULES.items()}
    done: set[str] = set()
    while True:
        free = {module for module, others in arrows.items() if module not in done and others <= done}
        if not free:
            break
        done |= free
    assert not set(arrows) - done, f"circle among {', '.join(sorted(set(arrows) - done))}"
