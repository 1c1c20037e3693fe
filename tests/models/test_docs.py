"""docs/models.md says what the architecture files and the list of models say.

`python tests/models/test_docs.py` prints the table's rows, to be pasted after a change.
"""

from pathlib import Path

import pytest

from mlenergy.diffusion.cost.costs import costs_of
from mlenergy.diffusion.cost.shape import ASSUMED_TEXT_TOKENS, t5_tokens
from mlenergy.diffusion.models.architectures.reader import architecture, architecture_ids, counted_ids
from mlenergy.diffusion.models.listed import BY_ID

PAGE = Path(__file__).parents[2] / "docs" / "models.md"


def row(model_id: str) -> str:
    spec, costs = BY_ID[model_id], costs_of(architecture(model_id))
    model = architecture(model_id)
    guided = spec.guidance == "classifier-free" and spec.default_guidance_scale > spec.family.unguided_scale
    area = spec.default_height_px * spec.default_width_px / spec.latent_factor**2
    frames = ((spec.default_num_frames or 1) - 1) // spec.frame_factor + 1
    cells = -(-frames // spec.patch_frames) * spec.patch_frames * area
    padded = t5_tokens(model, spec.default_max_sequence_length) or 0
    text = padded if spec.family.pads_text else ASSUMED_TEXT_TOKENS
    read = padded if spec.family.encoder_pads_text else text
    step = costs[model.denoiser.name].flops_at(2 if guided else 1, cells, text) / 1e12
    decode = costs["vae"].flops_at(1, frames * area, 0, area) / 1e12
    passes = 1 if not guided or model.options.get("force_zeros_for_empty_prompt") else 2
    lengths = [read + before for before in spec.family.template_tokens[:passes]]
    encode = sum(costs[e.name].flops_at(1, 0, n) for e in model.text_encoders for n in lengths) / 1e12
    scale = "none" if spec.default_guidance_scale is None else f"{spec.default_guidance_scale:g}"
    fields = [
        f"`{model_id}`",
        f"{costs[model.denoiser.name].parameters / 1e9:.3f} B",
        f"{sum(part.parameters for part in costs.values()) / 1e9:.2f} B",
        f"{spec.default_steps}, {scale}",
        spec.default_dtype,
        "fixed"
        if spec.default_max_sequence_length is None
        else str(text) + "*" * (not spec.family.pads_text),
        f"{encode:.2f}",
        f"{step:.2f}",
        f"{decode:.2f}",
        f"{encode + spec.default_steps * step + decode:,.0f}",
    ]
    return "| " + " | ".join(fields) + " |"


@pytest.mark.parametrize("model_id", counted_ids())
def test_every_model_has_its_row(model_id):
    assert row(model_id) in PAGE.read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("model_id", architecture_ids())
def test_what_is_unverified_is_said(model_id):
    page = PAGE.read_text(encoding="utf-8")
    line = next(line for line in page.splitlines() if line.startswith(f"- `{model_id}`:"))
    for key in architecture(model_id).unverified():
        assert f"`{key}`" in line, key


if __name__ == "__main__":
    print("\n".join(row(name) for name in counted_ids()))
    for name in architecture_ids():
        print(f"- `{name}`: " + ", ".join(f"`{key}`" for key in architecture(name).unverified()) + ".")
