"""Videos in the report, played by a real browser; the policy lets them come from the page alone."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import Browser
from result_folders import result, save
from result_samples import cpu_plan, prompt_set

from mlenergy.diffusion.report.html.collect import Limits, Report
from mlenergy.diffusion.report.html.page import page_of
from mlenergy.diffusion.results.media import save_outputs
from mlenergy.diffusion.results.paths import RunPaths

pytestmark = pytest.mark.full

SECONDS, FRAMES, FPS = (2.0, 2.4), 9, 8
PLAYED = """
const video = document.querySelector(arguments[0]), done = arguments[arguments.length - 1];
video.addEventListener("timeupdate", () => {
  if (video.currentTime > 0.2) done([video.readyState, video.videoWidth, video.videoHeight, video.duration]);
});
video.addEventListener("error", () => done(`error ${video.error && video.error.message}`));
video.play().catch((error) => done(String(error)));
"""


def run_of_videos(folder: Path, count: int) -> dict[str, Any]:
    """A result with that many MP4 files of a white square that moves over grey."""
    found = result(SECONDS, on_cpu=True, video=True)
    paths = RunPaths(folder, "tiny-wan")
    pixels = np.full((count, FRAMES, 64, 96, 3), 90, np.uint8)
    for frame in range(FRAMES):
        pixels[:, frame, 20:44, 8 * frame : 8 * frame + 24] = 255
    requests = prompt_set(cpu_plan(batch_size=1, benchmark_iters=count)).requests
    for output, name in zip(
        found["generation_results"], save_outputs(paths, requests, pixels, FPS), strict=False
    ):
        output["video"] = name
    save(folder, found)
    return found


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three videos, of which the page has room for two."""
    folder = tmp_path_factory.mktemp("report")
    found = run_of_videos(folder / "a run", 3)
    size = max(file.stat().st_size for file in (folder / "a run/video_outputs").iterdir())
    report = Report(Limits(clip_bytes=size, clips_bytes=int(2.5 * size)), folder)
    report.add(found, folder / "a run", "a run")
    report.add(result(), folder, "images")
    file = folder / "report.html"
    file.write_text(page_of("Videos", report.data("2 runs", False, datetime.now(UTC))), "utf-8")
    return file


def test_a_clip_plays_and_nothing_is_loaded_from_elsewhere(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.driver.set_script_timeout(20)
    ready, width, height, duration = browser.driver.execute_async_script(PLAYED, "#image-grid video")
    assert ready >= 2 and (width, height) == (96, 64)
    assert duration == pytest.approx(FRAMES / FPS, abs=0.02)
    assert len(browser.all("#image-grid video")) == 2
    assert browser.console() == []
    assert {one for one in browser.addresses() if not one.startswith("data:")} == {page.as_uri()}


def test_what_does_not_fit_is_a_link_to_the_file(browser: Browser, page: Path) -> None:
    browser.open(page)
    (link,) = browser.all("#image-grid a.clip")
    assert link.get_attribute("href").startswith((page.parent / "a run/video_outputs").as_uri())
    assert "1 video is linked" in browser.find("#problem-list").text
    link.click()
    assert browser.driver.current_url.endswith(".mp4")


def test_the_policy_lets_no_video_come_from_elsewhere(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.driver.set_script_timeout(20)
    blocked = browser.driver.execute_async_script(
        "const done = arguments[arguments.length - 1];"
        "document.addEventListener('securitypolicyviolation', (event) => done(event.effectiveDirective));"
        "document.querySelector('#image-grid video').src = arguments[0];",
        (page.parent / "a run" / "elsewhere.mp4").as_uri(),
    )
    assert blocked == "media-src"


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_table_says_what_it_counts(browser: Browser, page: Path, theme: str, tmp_path: Path) -> None:
    browser.open(page)
    while browser.find("#theme").text != f"Theme: {theme}":
        browser.find("#theme").click()
    heads = browser.texts("#table thead [data-sort]")
    assert "Seconds an image or video" in heads and "Frames a second" in heads
    browser.choose("#filter-task", "text-to-video")
    heads = browser.texts("#table thead [data-sort]")
    assert "Seconds a video" in heads and not any("image" in head.lower() for head in heads)
    assert any("96×64 × 9 frames at 8/s" in text for text in browser.texts("#table tbody td"))
    browser.driver.save_screenshot(str(tmp_path / f"table-{theme}.png"))
    browser.do("document.getElementById('images').scrollIntoView()")
    assert (
        browser.do("return document.querySelector('#image-grid video').getBoundingClientRect().width") == 320
    )
    browser.driver.save_screenshot(str(tmp_path / f"videos-{theme}.png"))
    browser.choose("#filter-task", "text-to-image")
    assert "Seconds an image" in browser.texts("#table thead [data-sort]")


def test_a_run_of_videos_is_named_with_its_frames_and_size(browser: Browser, page: Path) -> None:
    browser.open(page)
    assert "96×64 × 9 frames" in browser.find("#image-grid th:nth-child(2)").text
