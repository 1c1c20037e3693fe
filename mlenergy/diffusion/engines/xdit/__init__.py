"""The xDiT engine: a diffusers pipeline in the parallel wrapper of xfuser."""
