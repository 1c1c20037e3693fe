"""Power timelines and thumbnails: what a run's folder holds beside results.json, made small for a page."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image

THUMBNAIL_PX = 160  # longer side
TIMELINE_POINTS = 240  # of one GPU; a longer timeline is averaged over equal spans
_JPEG_QUALITY = 80


def timeline_of(file: Path) -> dict[str, Any] | None:
    """Power of every GPU over time, and when the measured windows were; None where there is no such file.

    Returns:
        gpus: a name each; time_s: seconds since the first window, one list for each GPU; power_w: the same
        shape; windows: (begin, end) in seconds of each measured window, from its samples.

    Raises:
        ValueError: the file cannot be read as a timeline.
    """
    if not file.is_file():
        return None
    import pyarrow.parquet as parquet

    try:
        columns = parquet.read_table(
            file, columns=["node", "uuid", "time_s", "power_w", "window"]
        ).to_pydict()
    except Exception as error:  # pyarrow raises its own kinds, and OSError
        raise ValueError(f"{file.name} cannot be read: {str(error).splitlines()[0]}") from error
    of_gpu: dict[tuple[str, str], list[tuple[float, float]]] = {}
    windows: dict[int, list[float]] = {}
    for node, uuid, time_s, power_w, window in zip(*columns.values(), strict=True):
        if power_w is None:
            continue
        of_gpu.setdefault((str(node), str(uuid)), []).append((time_s, power_w))
        if window is not None:
            windows.setdefault(window, []).append(time_s)
    if not of_gpu:
        return None
    samples = [thinned(sorted(points)) for points in of_gpu.values()]
    return {
        "gpus": [f"{node} {uuid[:12]}" for node, uuid in of_gpu],
        "time_s": [[round(time_s, 3) for time_s, _ in points] for points in samples],
        "power_w": [[round(power_w, 1) for _, power_w in points] for points in samples],
        "windows": [[round(min(t), 3), round(max(t), 3)] for _, t in sorted(windows.items())],
    }


def thinned(points: Sequence[tuple[float, float]], limit: int = TIMELINE_POINTS) -> list[tuple[float, float]]:
    """At most `limit` points: each the mean of as many neighbours as all others, but for the last."""
    if len(points) <= limit:
        return list(points)
    size = -(-len(points) // limit)
    groups = [points[k : k + size] for k in range(0, len(points), size)]
    return [(sum(t for t, _ in g) / len(g), sum(w for _, w in g) / len(g)) for g in groups]


def images_of(result: Mapping[str, Any], folder: Path, limit: int) -> tuple[list[dict[str, Any]], list[str]]:
    """Thumbnails of a run's first saved images, and a line for each that cannot be shown.

    Returns:
        prompt, seed and src (a data: address) of each; what is wrong with the others.
    """
    found: list[dict[str, Any]] = []
    problems: list[str] = []
    for image in result["generation_results"][:limit]:
        name = image.get("image")
        if name is None:
            continue
        try:
            source = thumbnail(inside(folder, str(name)))
        except (OSError, ValueError, SyntaxError) as error:  # Pillow raises all three for broken files
            problems.append(f"{name}: {error}")
            continue
        found.append({"prompt": str(image["prompt"]), "seed": image["seed"], "src": source})
    return found, problems


def inside(folder: Path, name: str) -> Path:
    """A file of a folder.

    Raises:
        ValueError: the name leads out of the folder; a result from elsewhere shall not publish other files.
    """
    file = (folder / name).resolve()
    if not file.is_relative_to(folder.resolve()):
        raise ValueError("the file lies outside of its result folder")
    return file


def thumbnail(file: Path) -> str:
    """An image as a small JPEG in a data: address.

    Raises:
        OSError: the file is absent or no image.
        ValueError: its size is not plausible.
    """
    from PIL import Image as Images
    from PIL import UnidentifiedImageError

    try:
        with Images.open(file) as image:
            small = image.convert("RGB")
    except Images.DecompressionBombError as error:
        raise ValueError(str(error)) from error
    except UnidentifiedImageError as error:
        raise OSError("not an image") from error
    return jpeg_source(small)


def jpeg_source(image: Image) -> str:
    """An image in memory as a small JPEG in a data: address."""
    small = image.convert("RGB")
    small.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
    content = io.BytesIO()
    small.save(content, "JPEG", quality=_JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(content.getvalue()).decode()
