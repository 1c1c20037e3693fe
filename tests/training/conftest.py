"""Images with captions that the tests make."""

import json

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """A folder with four images of 64x64 and their captions."""
    folder = tmp_path_factory.mktemp("pictures")
    lines = []
    for i in range(4):
        pixels = np.zeros((64, 64, 3), np.uint8)
        pixels[:, :, i % 3] = 200
        pixels[i * 8 : i * 8 + 16] = 255
        Image.fromarray(pixels).save(folder / f"{i}.png")
        lines.append(json.dumps({"file_name": f"{i}.png", "text": f"picture {i}"}))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return folder
