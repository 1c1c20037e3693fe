"""Batches of different prompts, seeds and sizes, and the words of a small plan."""

from mlenergy.diffusion.engine import Batch
from mlenergy.diffusion.models.resolve import resolve_model

FOX = Batch(("a red fox",), (1,))
WHALE = Batch(("a blue whale", "a green frog"), (9, 10))
# Height and width that the decoder of a tiny model of videos cuts into tiles.
TILED_SIZES = {
    "tiny/wan": ("32", "272"),
    "tiny/wan2.2": ("32", "272"),
    "tiny/wan2.2-ti2v": ("32", "288"),
    "tiny/hunyuanvideo": ("32", "272"),
    "tiny/cogvideox": ("64", "96"),
    "tiny/cogvideox1.5": ("64", "96"),
    "tiny/ltx": ("32", "544"),
}
SIZES = ["--workload.height", "64", "--workload.width", "64", "--workload.dataset", "bundled"]


def words_of(model: str, words: list[str]) -> list[str]:
    """A command line for one small image, or a video of nine frames, of a tiny model."""
    if not resolve_model(model).family.makes_video:
        return ["workload:t2i", "--workload.model_id", model, *SIZES, *words]
    return ["workload:t2v", "--workload.model_id", model, *SIZES, "--workload.num_frames", "9", *words]
