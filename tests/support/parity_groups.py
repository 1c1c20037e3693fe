"""Parity cases and references of the families in models/groups/, one file each, joined here."""

from __future__ import annotations

import parity_of_cogvideox
import parity_of_flux2
import parity_of_hunyuan_video
import parity_of_hunyuan_video15
import parity_of_latte
import parity_of_ltx
import parity_of_ltx2
import parity_of_qwen_image
import parity_of_wan
import parity_of_z_image
from parity_group import Group
from parity_lumina2 import LUMINA2
from parity_sana import SANA
from parity_unsplit import UNSPLIT

GROUPS: tuple[Group, ...] = (
    parity_of_flux2.GROUP,
    parity_of_qwen_image.GROUP,
    parity_of_z_image.GROUP,
    SANA,
    LUMINA2,
    UNSPLIT,
    parity_of_cogvideox.GROUP,
    parity_of_hunyuan_video.GROUP,
    parity_of_wan.GROUP,
    parity_of_ltx.GROUP,
    parity_of_hunyuan_video15.GROUP,
    parity_of_ltx2.GROUP,
    parity_of_latte.GROUP,
)
