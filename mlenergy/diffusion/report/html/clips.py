"""Videos of a run for the page: inside it as MP4 while there is room, else links to their files."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from mlenergy.diffusion.report.html.extras import inside, jpeg_source


@dataclass
class Room:
    """Bytes of clips that the page may still take."""

    per_clip: int
    left: int

    def takes(self, size: int) -> bool:
        """Take a clip of that many bytes, if there is room for it."""
        if size > min(self.per_clip, self.left):
            return False
        self.left -= size
        return True


def clips_of(
    result: Mapping[str, Any], folder: Path, limit: int, room: Room, page_folder: Path
) -> tuple[list[dict[str, Any]], list[str]]:
    """A run's first saved videos, and a line for each that cannot be shown.

    Args:
        result: content of its results.json.
        folder: that holds it.
        limit: the most of them.
        room: for clips inside the page; what does not fit is linked.
        page_folder: of the page, from which links lead.

    Returns:
        prompt, seed, src (the first frame as a small JPEG in a data: address) and clip (an MP4 in a data:
        address) or href (a relative address) of each; what is wrong with the others.
    """
    found: list[dict[str, Any]] = []
    problems: list[str] = []
    for output in result["generation_results"][:limit]:
        name = output.get("video")
        if name is None:
            continue
        try:
            file = inside(folder, str(name))
            source = _first_frame(file)
            size = file.stat().st_size
            shown = {"clip": _embedded(file)} if room.takes(size) else {"href": _link(file, page_folder)}
        except (OSError, ValueError) as error:
            problems.append(f"{name}: {error}")
            continue
        found.append({"prompt": str(output["prompt"]), "seed": output["seed"], "src": source, **shown})
    return found, problems


def _first_frame(file: Path) -> str:
    """The first frame as a small JPEG.

    Raises:
        OSError: the file is absent, or no video.
    """
    import av

    try:
        with av.open(str(file)) as container:
            frame = next(container.decode(video=0))
            return jpeg_source(frame.to_image())
    except FileNotFoundError as error:
        raise OSError("the file is missing") from error
    except (av.FFmpegError, StopIteration, IndexError) as error:
        raise OSError("not a video") from error


def _embedded(file: Path) -> str:
    return "data:video/mp4;base64," + base64.b64encode(file.read_bytes()).decode()


def _link(file: Path, page_folder: Path) -> str:
    """A relative address, which begins with a point so that no part of a name is taken for a scheme."""
    relative = os.path.relpath(file, page_folder.resolve())
    return "./" + quote(Path(relative).as_posix())
