"""Full-size pipelines without weights: what a model costs does not depend on what it has learned."""

from mlenergy.diffusion.random_weights.pipeline import RandomStart, build_random_pipeline, start_report
from mlenergy.diffusion.random_weights.tokenizers import saved_tokenizers

__all__ = ["RandomStart", "build_random_pipeline", "saved_tokenizers", "start_report"]
