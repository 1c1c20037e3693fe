"""What a stopped run leaves: its numbers first, then images while there is time."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from result_folders import result

from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.prompts.sampling import Request
from mlenergy.diffusion.results import save
from mlenergy.diffusion.results.paths import RunPaths
from mlenergy.diffusion.results.save import save_stopped

REQUESTS = [Request(n, f"prompt {n}", 42 + n, None) for n in range(2)]
WINDOWS = [np.full((1, 8, 8, 3), 50 * n, np.uint8) for n in range(2)]


def stopped() -> dict:
    return result([1.0, 1.1], batch_size=1)


def names(paths: RunPaths) -> list[str | None]:
    content = json.loads(paths.interrupted.read_text())
    return [image["image"] for image in content["generation_results"]]


def test_images_are_written_and_named(tmp_path: Path) -> None:
    from PIL import Image

    paths = RunPaths(tmp_path, "m")
    save_stopped(paths, stopped(), REQUESTS, WINDOWS)
    found = names(paths)
    assert found == ["image_outputs/m_0001_prompt_0.png", "image_outputs/m_0002_prompt_1.png"]
    with Image.open(tmp_path / str(found[1])) as image:
        assert image.getpixel((0, 0)) == (50, 50, 50)


def test_after_the_time_limit_the_others_have_no_file(tmp_path: Path) -> None:
    paths = RunPaths(tmp_path, "m")
    save_stopped(paths, stopped(), REQUESTS, WINDOWS, limit_s=-1)
    assert names(paths) == [None, None] and not paths.images.exists()


def test_the_images_of_an_earlier_result_stay(tmp_path: Path) -> None:
    paths = RunPaths(tmp_path, "m")
    paths.results.write_text("{}")
    save_stopped(paths, stopped(), REQUESTS, WINDOWS)
    assert names(paths) == [None, None] and not paths.images.exists()


def test_a_full_disk_costs_images_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise UserError("cannot write: No space left on device")

    monkeypatch.setattr(save, "save_outputs", full)
    paths = RunPaths(tmp_path, "m")
    save_stopped(paths, stopped(), REQUESTS, WINDOWS)
    assert names(paths) == [None, None]
