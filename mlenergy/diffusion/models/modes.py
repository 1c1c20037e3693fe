"""Which parallel modes each engine offers each family.

A mode is here only when its images equal those of one rank in the parity tests;
docs/capabilities.md is made from those.
"""

from __future__ import annotations

from mlenergy.diffusion.models.spec import Mode

_SEQUENCE: frozenset[Mode] = frozenset({"ulysses", "ring"})
_GUIDED: frozenset[Mode] = frozenset({"cfg", "data"})

# The diffusers engine; diffusers has neither PipeFusion nor a parallel VAE. FLUX runs no guidance batch,
# so there is nothing to split for "cfg"; it alone of these brings a plan for its weights ("tensor"). The
# UNets have no one sequence to split.
DIFFUSERS_MODES: dict[str, frozenset[Mode]] = {
    "flux": _SEQUENCE | {"data", "tensor"},
    "sd3": _SEQUENCE | _GUIDED,
    "pixart-alpha": _SEQUENCE | _GUIDED,
    "pixart-sigma": _SEQUENCE | _GUIDED,
    "hunyuandit": _SEQUENCE | _GUIDED,
    "sdxl": _GUIDED,
    "sd": _GUIDED,
}

# The xdit engine; a family that is missing has no pipeline in xfuser.
# PipeFusion is approximate (Plan.approximation); "tensor" splits nothing but FLUX.
XDIT_MODES: dict[str, frozenset[Mode]] = {
    "flux": _SEQUENCE | {"data", "pipefusion", "parallel-vae", "tensor"},
    "sd3": _SEQUENCE | _GUIDED | {"pipefusion", "parallel-vae"},
    "pixart-alpha": _SEQUENCE | _GUIDED | {"pipefusion", "parallel-vae"},
    "pixart-sigma": _SEQUENCE | _GUIDED | {"pipefusion", "parallel-vae"},
    "hunyuandit": _SEQUENCE | _GUIDED | {"pipefusion", "parallel-vae"},
    "sdxl": frozenset({"cfg", "parallel-vae"}),
}
