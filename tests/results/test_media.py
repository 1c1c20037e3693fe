"""Pixels become PNG files without loss and MP4 files at their rate, under the names that the results hold."""

import numpy as np
import pytest
from PIL import Image
from result_samples import cpu_plan, prompt_set

from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.results.media import save_outputs
from mlenergy.diffusion.results.paths import RunPaths


@pytest.fixture
def run(tmp_path):
    plan = cpu_plan(tmp_path)
    return RunPaths.of(plan), prompt_set(plan).requests


def noise(n, height=8, width=12):
    return np.random.default_rng(0).integers(0, 256, (n, height, width, 3), dtype=np.uint8)


def test_pixels_come_back_as_they_were(run):
    paths, requests = run
    pixels = noise(4)
    names = save_outputs(paths, requests, pixels)
    assert [name.split("_")[2] for name in names] == ["0001", "0002", "0003", "0004"]
    for name, image in zip(names, pixels, strict=True):
        with Image.open(paths.folder / name) as stored:
            assert stored.format == "PNG"
            assert (np.asarray(stored) == image).all()
    assert sorted(p.name for p in paths.images.iterdir()) == sorted(
        n.removeprefix("image_outputs/") for n in names
    )


def test_a_later_batch_keeps_its_own_numbers(run):
    paths, requests = run
    names = save_outputs(paths, requests[2:], noise(2))
    assert [name.split("_")[2] for name in names] == ["0003", "0004"]


@pytest.mark.parametrize(
    "pixels",
    [noise(1).astype(np.float32), noise(1)[0], noise(1)[..., :1], noise(1).transpose(0, 3, 1, 2), noise(2)],
)
def test_anything_else_than_its_images_is_refused(run, pixels):
    paths, requests = run
    with pytest.raises(ValueError, match="outputs"):
        save_outputs(paths, requests[:1], pixels)
    assert not paths.images.exists()


def test_a_folder_that_cannot_be_written_is_one_line(run):
    paths, requests = run
    paths.folder.mkdir(parents=True)
    paths.images.write_text("a file in the way")
    with pytest.raises(UserError, match=r"cannot write .*0001_.*; choose a --workload.base_dir"):
        save_outputs(paths, requests[:1], noise(1))


@pytest.mark.parametrize("fps", [15, 8])
def test_a_video_has_its_frames_in_their_order_and_plays_at_its_rate(run, fps):
    """H.264 of flat greys: a frame's level tells which one it is."""
    import av

    paths, requests = run
    frames, height, width = 9, 64, 96
    levels = np.array([[40 + 10 * at for at in range(frames)], [220 - 10 * at for at in range(frames)]])
    pixels = np.broadcast_to(levels[..., None, None, None], (2, frames, height, width, 3)).astype(np.uint8)
    names = save_outputs(paths, requests[:2], pixels, fps)
    for name, own in zip(names, levels, strict=True):
        assert name.startswith("video_outputs/")
        with av.open(str(paths.folder / name)) as stored:
            stream = stored.streams.video[0]
            shown = [frame.to_ndarray(format="rgb24") for frame in stored.decode(video=0)]
            assert (stream.average_rate, stream.codec_context.name) == (fps, "h264")
            assert float(stream.duration * stream.time_base) == pytest.approx(frames / fps)
        assert len(shown) == frames and shown[0].shape == (height, width, 3)
        assert [frame.mean() for frame in shown] == pytest.approx(own, abs=3)
