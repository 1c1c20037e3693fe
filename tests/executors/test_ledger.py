from pathlib import Path

import pytest

from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.executors.ledger import Entry, Ledger


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    ledger = Ledger.load(tmp_path / "folder" / "state.json")
    assert not ledger.entries
    ledger.entries["a"] = Entry(("--x", "é"), "label", 2, "running", 1, log="l")
    ledger.save()
    ledger.update("a", state="failed", exit_code=1)
    ledger.save()
    again = Ledger.load(ledger.file)
    assert again == ledger
    assert again.entries["a"].state == "failed"
    assert [file.name for file in ledger.file.parent.iterdir()] == ["state.json"]


@pytest.mark.parametrize("content", ["{", "[]", '{"version": 99}'])
def test_a_foreign_file_is_not_overwritten(tmp_path: Path, content: str) -> None:
    file = tmp_path / "state.json"
    file.write_text(content)
    with pytest.raises(UserError, match="move it away to start anew"):
        Ledger.load(file)
    assert file.read_text() == content
