"""Lumina-Image 2.0: guidance is a second call of the denoiser, which leaves padding out of its sequence."""

from __future__ import annotations

from functools import partial

from mlenergy.diffusion.models.groups.common import GUIDED, ONE_TEXT, SIZE_256, SIZE_1024
from mlenergy.diffusion.models.spec import Family, ModelSpec

LUMINA2 = Family(
    name="lumina2",
    pipeline_class="Lumina2Pipeline",
    denoiser="transformer",
    predicts="flow",
    text_encoders=ONE_TEXT,
    has_t5=False,
    size_step_px=16,
    takes_text_length=True,
    separate_guidance=True,
    gives_sigmas=True,
    counts_as_run=True,  # the denoiser cuts each text to its own length
    takes_attention_kernel=False,  # its layers call torch's attention themselves, with keys that heads share
    modes={"xdit": GUIDED | {"ulysses"}, "diffusers": GUIDED},
    reasons={
        "ring": "its texts have lengths of their own, for which xfuser's rings have no mask",
        "pipefusion": "xfuser has none for it",
        "parallel-vae": "xfuser has none for it",
    },
    caches={},
)

_lumina2 = partial(
    ModelSpec,
    family=LUMINA2,
    guidance="classifier-free",
    default_guidance_scale=4.0,
    default_max_sequence_length=256,
    max_sequence_length_limit=256,
)

FAMILIES = (LUMINA2,)
LISTED = (
    _lumina2(
        model_id="Alpha-VLLM/Lumina-Image-2.0",
        default_steps=50,
        default_dtype="bfloat16",
        heads=24,
        kv_heads=8,
        layers=26,
        parameters=5_307_930_723,
        source="defaults: model card; shape and parameters: configuration counted on the meta device",
        **SIZE_1024,
    ),
)
TINY = (
    _lumina2(
        model_id="tiny/lumina2",
        default_steps=4,
        default_dtype="float32",
        heads=4,
        kv_heads=2,
        source="built in the process with random weights",
        **SIZE_256,
    ),
)
