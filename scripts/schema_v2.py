#!/usr/bin/env python3
"""Writes the JSON Schema of results of videos (version 2) from that of images (version 1).

Both say the same but for the unit in the names of keys, and for the figures that videos alone have.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "mlenergy" / "diffusion" / "schema"
# Options and records that keep their names whatever a run generates.
_KEPT = ("save_images", "image_seed", "images_per_call")
_RATE = {"type": "number", "exclusiveMinimum": 0}
_JOULES = {"type": ["number", "null"], "minimum": 0}
_COUNT = {"type": "integer", "minimum": 1}
_OF_VIDEOS = {
    "num_frames": (_COUNT, "frames of one video"),
    "fps": (_COUNT, "frames per second at which it plays"),
    "video_length_s": (_RATE, "num_frames / fps, seconds"),
    "throughput_frames_per_sec": (_RATE, "completed * num_frames / generation_time"),
    "video_seconds_per_sec": (_RATE, "completed * video_length_s / generation_time"),
    "real_time_factor": (_RATE, "generation_time / (completed * video_length_s): 1 is as fast as it plays"),
    "energy_per_frame_j": (_JOULES, "total_energy_j / (completed * num_frames)"),
    "energy_per_video_second_j": (_JOULES, "total_energy_j / (completed * video_length_s)"),
}


def schema() -> dict[str, Any]:
    """The schema of version 2."""
    of_images = json.loads((FOLDER / "results-v1.json").read_text("utf-8"))
    similarity, quality = of_images["properties"].pop("similarity"), of_images["properties"].pop("quality")
    del of_images["$defs"]["quality_metric"], similarity, quality  # of saved images alone
    found: dict[str, Any] = _renamed(of_images)
    added = {key: {**kind, "description": text} for key, (kind, text) in _OF_VIDEOS.items()}
    unit = {"const": "video", "description": "what the figures count; absent in version 1, of images"}
    found["properties"] |= {"schema_version": {"const": 2}, "unit": unit, **added}
    found["properties"]["schema_minor_version"]["minimum"] = 0
    found["required"] += ["unit", *added]
    found["title"] = "mlenergy diffusion result, version 2: videos"
    return found


def text_of(content: dict[str, Any]) -> str:
    """The file's text."""
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _renamed(node: Any) -> Any:
    if isinstance(node, dict):
        return {_name(key): _renamed(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_renamed(value) for value in node]
    return _name(node) if isinstance(node, str) else node


def _name(text: str) -> str:
    if text in _KEPT:
        return text
    return re.sub(r"\ban image\b", "a video", text).replace("image", "video")


if __name__ == "__main__":
    (FOLDER / "results-v2.json").write_text(text_of(schema()), encoding="utf-8")
