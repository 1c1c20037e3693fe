"""Batches of different prompts, seeds and sizes, and the words of a small plan."""

from mlenergy.diffusion.engine import Batch

FOX = Batch(("a red fox",), (1,))
WHALE = Batch(("a blue whale", "a green frog"), (9, 10))
SIZES = ["--workload.height", "64", "--workload.width", "64", "--workload.dataset", "bundled"]


def words_of(model: str, words: list[str]) -> list[str]:
    """A command line for one small image of a tiny model."""
    return ["workload:t2i", "--workload.model_id", model, *SIZES, *words]
