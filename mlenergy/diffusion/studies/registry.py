"""The table of studies: a new one is a file of this folder and a line here."""

from __future__ import annotations

from mlenergy.diffusion.config.option import nearest
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.studies.ablation import ABLATION
from mlenergy.diffusion.studies.icons import ICONS
from mlenergy.diffusion.studies.latent import LATENT
from mlenergy.diffusion.studies.mlenergy_v3 import MLENERGY_V3
from mlenergy.diffusion.studies.mlperf_wan import MLPERF_WAN
from mlenergy.diffusion.studies.models import MODELS
from mlenergy.diffusion.studies.scaling import SCALING
from mlenergy.diffusion.studies.study import Study
from mlenergy.diffusion.studies.tiers import TIERS
from mlenergy.diffusion.studies.vram import VRAM

STUDIES: dict[str, Study] = {
    study.name: study
    for study in (
        ICONS,
        VRAM,
        TIERS,
        LATENT,
        MODELS,
        ABLATION,
        SCALING,
        MLENERGY_V3,
        MLPERF_WAN,
    )
}  # fmt: skip


def study_named(name: str) -> Study:
    """The study of a name.

    Raises:
        UserError: there is none; with the one that was probably meant.
    """
    if name in STUDIES:
        return STUDIES[name]
    meant = nearest(name, STUDIES)
    hint = f"did you mean {meant}?" if meant else f"use one of {', '.join(STUDIES)}"
    raise UserError(f"there is no study {name!r}; {hint}")
