"""Parity cases and references of the families in models/groups/, one file each, joined here."""

from __future__ import annotations

from parity_group import Group
from parity_sana import SANA

GROUPS: tuple[Group, ...] = (SANA,)
