"""The diffusers engine, with the parallelism that diffusers has."""
