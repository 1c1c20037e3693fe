"""Diffusion benchmark: args -> plan -> engine -> measure -> results -> report."""
