"""Output heads of noise-predicting denoisers that follow their input.

A trained model that predicts noise mostly repeats its input, which is mostly noise. One that
answers with unrelated noise of the same size makes a sampler divide by the last of the signal:
latents of a spread of hundreds, which no run ever has. So the head, and it alone, is given the
transpose of the way in; sizes and work stay what they are. Models that predict a velocity
need nothing of the kind.
"""

from __future__ import annotations

from typing import Any

import torch

_STREAM_GAIN = 6.0  # the embedded input against what the blocks add to it
_SILU_SLOPE = 0.5  # mean slope of SiLU over a normal input
_FEATURE_STD = 1.5  # of a UNet's last features before their norm, as random weights give them


@torch.no_grad()
def follow_input(module: torch.nn.Module) -> bool:
    """Tie the head of a denoiser to its input, in place; False for a class that is not known here."""
    if hasattr(module, "conv_in") and hasattr(module, "conv_out"):
        _tie_unet(module)
        return True
    if hasattr(module, "pos_embed") and hasattr(module, "proj_out"):
        _tie_patches(module)
        return True
    return False


def _tie_patches(module: Any) -> None:
    """proj_out (patch × patch × channels, width) takes up pos_embed.proj (width, channels, patch, patch)."""
    way_in = module.pos_embed.proj.weight
    width, channels, patch, _ = way_in.shape
    rows = way_in.float().permute(2, 3, 1, 0) * (channels * patch * patch / width)
    head = module.proj_out.weight.view(patch, patch, -1, width)
    head[:, :, :channels].copy_(rows)  # later channels are the variance, which samplers drop
    way_in.mul_(_STREAM_GAIN)


def _tie_unet(module: Any) -> None:
    """conv_out mirrors conv_in through the shortcut that brings the first skip to the last block."""
    shortcut = module.up_blocks[-1].resnets[-1].conv_shortcut.weight
    way_in = module.conv_in.weight.float()
    from_skip = shortcut[:, -way_in.shape[0] :, 0, 0].float()  # the skip is the latter part
    path = torch.einsum("fs,scyx->fcyx", from_skip, way_in)
    energy = path.square().sum(dim=(0, 2, 3)).mean()
    mirrored = path.flip(2, 3).transpose(0, 1) * (_FEATURE_STD / (_SILU_SLOPE * energy))
    module.conv_out.weight.copy_(mirrored)
