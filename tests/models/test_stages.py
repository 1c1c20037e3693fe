"""Which stage of a call each component of a family works in."""

from __future__ import annotations

import pytest

from mlenergy.diffusion.models.architectures.reader import architecture, architecture_ids
from mlenergy.diffusion.models.families import FAMILIES, SD3, SDXL
from mlenergy.diffusion.models.spec import STAGES


def test_stages_stand_in_the_order_of_a_call():
    assert STAGES == ("text_encode", "denoise", "vae_decode")


def test_components_are_mapped_to_their_stage():
    assert SD3.stages == {
        "text_encoder": "text_encode",
        "text_encoder_2": "text_encode",
        "text_encoder_3": "text_encode",
        "transformer": "denoise",
        "vae": "vae_decode",
    }
    assert SDXL.stages["unet"] == "denoise" and "safety_checker" not in SDXL.stages


@pytest.mark.parametrize("family", FAMILIES.values(), ids=lambda family: family.name)
def test_every_family_has_a_component_for_every_stage(family):
    assert set(family.stages.values()) == set(STAGES)


@pytest.mark.parametrize("model_id", architecture_ids())
def test_every_module_of_a_published_architecture_works_in_a_stage(model_id):
    model = architecture(model_id)
    assert set(model.modules) <= set(FAMILIES[model.pipeline_class].stages)
