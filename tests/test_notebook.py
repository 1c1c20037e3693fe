"""The notebook of docs/: whole and with its outputs; executed against the package in `make test-all`."""

import json
import re
import shutil
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "docs" / "notebooks" / "optimizing.ipynb"


@pytest.fixture
def notebook():
    found = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(found)
    return found


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_the_notebook_is_committed_as_it_ran(notebook):
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    for cell in cells:
        assert cell.outputs, cell.source
        assert {output.output_type for output in cell.outputs} <= {"stream", "execute_result"}
        compile(cell.source, cell.id, "exec")
    text = json.dumps(notebook)
    assert not re.search(r"/(home|root|tmp|work|Users)/", text), "a path of the machine that it ran on"


def test_what_the_notebook_imports_and_links_to_is_there(notebook):
    sources = "\n".join(cell.source for cell in notebook.cells)
    for module, names in re.findall(r"from (mlenergy\S*) import (.+)", sources):
        assert (module, names) == ("mlenergy.diffusion", "benchmark, load_results")
    links = {*re.findall(r"\]\((\.\./[^)#]+)", sources), *re.findall(r'"(\.\./[^"]+\.json)"', sources)}
    assert len(links) >= 3
    for link in links:
        assert (NOTEBOOK.parent / link).is_file(), link


@pytest.mark.full
def test_the_notebook_runs(notebook, tmp_path):
    from nbclient import NotebookClient

    shutil.copytree(ROOT / "docs" / "measurements", tmp_path / "measurements")
    place = tmp_path / "notebooks"
    place.mkdir()
    for cell in code_cells(notebook):
        cell.outputs, cell.execution_count = [], None
    NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": place}}
    ).execute()
    cells = code_cells(notebook)
    table = cells[1].outputs[-1]["data"]["text/plain"]
    assert "tier 3: int8 weights" in table and "times faster" in table
    assert len(list((place / "run" / "notebook").glob("*/results.json"))) == 4
    assert "no GPU takes part" in cells[3].outputs[-1]["data"]["text/html"]
