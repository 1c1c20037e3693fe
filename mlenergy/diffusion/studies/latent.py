"""The study `latent`: sizes, bits and losses of the latents that denoisers work on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from mlenergy.diffusion.config.option import Range
from mlenergy.diffusion.config.parser import option_group
from mlenergy.diffusion.environment.device import detect_device
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.models.architectures.reader import find_architecture
from mlenergy.diffusion.models.facts import latent_factor
from mlenergy.diffusion.models.resolve import resolve_model
from mlenergy.diffusion.models.spec import is_tiny
from mlenergy.diffusion.quality.latents import LatentSize, cropped, measure_latents
from mlenergy.diffusion.quality.reference import saved_pixels
from mlenergy.diffusion.results.atomic import write_json, written_aside
from mlenergy.diffusion.studies.content import (
    Column,
    Gap,
    Part,
    Picture,
    Pictures,
    Report,
    Table,
    Value,
)
from mlenergy.diffusion.studies.likeness import image_files
from mlenergy.diffusion.studies.outcome import Cell, Outcome
from mlenergy.diffusion.studies.study import Study, StudyOptions, Sweep, Sweeps
from mlenergy.diffusion.supervision.terminal import redirect_output

if TYPE_CHECKING:
    from mlenergy.diffusion.weights.vae import Vae

_FILE, _LOG = "latents.json", "latents_log.txt"
_KINDS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
_LEAST_PX = 11  # SSIM's window
_SHOWN = 2
_SWEEP = "images"
_RANDOM = "random weights: what such a VAE keeps says nothing of a trained one"


@option_group("study")
@dataclass(frozen=True, kw_only=True)
class LatentOptions(StudyOptions):
    """Pixels to latents: count ratio, bits per pixel with their entropy, PSNR and SSIM of what comes back."""

    models: tuple[str, ...] = (
        "stable-diffusion-v1-5/stable-diffusion-v1-5",
        "stabilityai/stable-diffusion-xl-base-1.0",
        "stabilityai/stable-diffusion-3.5-medium",
        "black-forest-labs/FLUX.1-dev",
    )
    """Models whose VAEs are measured."""
    images: Path | None = None
    """Folder of images to encode. Default: images that each model makes itself, which are easier for its VAE
    than photographs."""
    count: Annotated[int, Range(least=1, most=100_000)] = 16
    """Images, the first ones by name of --images, or as many as each model makes."""


def sweeps(options: LatentOptions) -> Sweeps:
    """The images of each model, unless a folder of images is given; none with random weights."""
    if options.images is not None:
        _files_in(options.images)
        return
    making = [model for model in options.models if not _is_random(options, model)]
    if making:
        common = {"benchmark_iters": 2 if options.quick else options.count, "warmup_iters": 0}
        yield Sweep(_SWEEP, {"common": common, "grid": {"model_id": making}})


def after(options: LatentOptions, outcome: Outcome) -> None:
    """Encode and decode the images by each model's VAE, unless that was done before."""
    known = _read(outcome.folder)
    for model in (one for one in options.models if not _is_random(options, one)):
        files = _images_of(options, outcome, model)
        mark = _mark(files)
        if files and (known.get(model, {}).get("of") != mark or "reason" in known[model]):
            with redirect_output(outcome.folder / _LOG, debug=False):  # what libraries say as they load
                found = _measured(model, files, outcome.folder)
            known[model] = {"of": mark, **found}
            write_json(outcome.folder / _FILE, known)


def report(options: LatentOptions, outcome: Outcome) -> Report:
    """Sizes, bits and losses of each VAE; originals beside what comes back."""
    known = _read(outcome.folder)
    sizes = [_size_row(model) for model in options.models]
    losses = [_loss_row(options, outcome, model, known) for model in options.models]
    source = "images that each model made" if options.images is None else f"images of {options.images}"
    parts: list[Part] = [
        Table(
            "sizes",
            "Pixels to latents",
            _SIZE_COLUMNS,
            sizes,
            "Count ratio: numbers in the image (3 × height × width) ÷ numbers in its latent. Bits a pixel: "
            "8 × numbers in the latent ÷ (height × width); the image itself has 24.",
        ),
        Table(
            "losses",
            "What is kept",
            _LOSS_COLUMNS,
            losses,
            f"Of {source}. 8 bits: each channel's range over all images in 256 even levels. Entropy: "
            "-Σ p log₂ p of how often a level occurs in its channel, mean over channels; a coder that uses "
            "neighbours needs less. It is too small by about the bias, as it is taken from a finite number "
            "of values. PSNR and SSIM compare the image with its reconstruction, rounded to 8 bits a colour.",
        ),
    ]
    shown = list(_pictures(options, known, outcome.folder))
    if shown:
        columns = [name for n in range(1, _SHOWN + 1) for name in (f"image {n}", "reconstruction")]
        parts.append(Pictures("reconstructions", "Images and their reconstructions", columns, shown))
    return Report("What the VAE saves", list(_summary(sizes, losses)), parts, data={"latents": known})


_SIZE_COLUMNS = (
    Column("model", "model"),
    Column("image", "image at the default size"),
    Column("latent", "latent"),
    Column("count_ratio", "count ratio"),
    Column("bits_per_pixel", "bits a pixel at 8 bits a value"),
)
_LOSS_COLUMNS = (
    Column("model", "model"),
    Column("images", "images"),
    Column("entropy_bits_per_value", "entropy, bits a value"),
    Column("entropy_bias_bits", "its bias"),
    Column("entropy_bits_per_pixel", "entropy, bits a pixel"),
    Column("png_bits_per_pixel", "PNG, bits a pixel"),
    Column("psnr_db", "PSNR, dB"),
    Column("ssim", "SSIM"),
    Column("psnr_8_bit_db", "PSNR at 8 bits, dB"),
    Column("ssim_8_bit", "SSIM at 8 bits"),
)


def _is_random(options: LatentOptions, model: str) -> bool:
    return options.weights == "random" or is_tiny(model)


def _size_row(model: str) -> dict[str, Value]:
    """From the configurations alone, which need no weights."""
    spec = resolve_model(model)
    config = find_architecture(model).components["vae"].config
    factor, channels = latent_factor(config), int(config["latent_channels"])
    height, width = spec.default_height_px, spec.default_width_px
    size = LatentSize(height, width, channels, height // factor, width // factor)
    return {
        "model": model,
        "image": f"{width}x{height}x3",
        "latent": f"{size.columns}x{size.rows}x{channels}",
        "count_ratio": size.count_ratio,
        "bits_per_pixel": size.bits_per_pixel,
    }


def _loss_row(
    options: LatentOptions, outcome: Outcome, model: str, known: dict[str, Any]
) -> dict[str, Value]:
    row: dict[str, Value] = {"model": model}
    reason = _RANDOM if _is_random(options, model) else None
    found = known.get(model)
    if reason is None and found is None:
        cell = outcome.cell(_SWEEP, model_id=model)
        reason = (cell.gap if cell else None) or "not measured yet; mlenergy study run measures it"
    elif reason is None and found is not None and "reason" in found:
        reason = str(found["reason"])
    if reason is not None or found is None:
        return row | {c.key: Gap(reason or "not measured") for c in _LOSS_COLUMNS if c.key != "model"}
    names = ("entropy_bits_per_value", "entropy_bias_bits", "entropy_bits_per_pixel", "png_bits_per_pixel")
    row |= {"images": found["images_count"], **{name: float(found[name]) for name in names}}
    for name, ending in (("reconstruction", ""), ("reconstruction_8_bit", "_8_bit")):
        psnr_db, ssim = found[name]["psnr_db"], found[name]["ssim"]
        same = Gap("every image comes back as it was")
        row[f"psnr{ending}_db"] = same if psnr_db is None else float(psnr_db["mean"])
        row[f"ssim{ending}"] = float(ssim["mean"])
    return row


def _summary(sizes: Sequence[dict[str, Value]], losses: Sequence[dict[str, Value]]) -> Iterator[str]:
    for size, loss in zip(sizes, losses, strict=True):
        line = f"{size['model']}: {size['count_ratio']:g} times fewer numbers than pixels have"
        psnr_db = loss["psnr_db"]
        yield f"{line}, which come back at {psnr_db:.1f} dB." if isinstance(psnr_db, float) else f"{line}."


def _images_of(options: LatentOptions, outcome: Outcome, model: str) -> list[Path]:
    if options.images is not None:
        return _files_in(options.images)[: 2 if options.quick else options.count]
    cell: Cell | None = outcome.cell(_SWEEP, model_id=model)
    run = next((one for one in cell.runs if one.record is not None), None) if cell else None
    return [] if run is None else image_files(run)


def _files_in(folder: Path) -> list[Path]:
    """Images of a folder, by name.

    Raises:
        UserError: it is no folder, or has none.
    """
    if not folder.is_dir():
        raise UserError(f"--images {folder} is no folder; name one that holds images")
    found = sorted(file for file in folder.iterdir() if file.suffix.lower() in _KINDS and file.is_file())
    if not found:
        raise UserError(f"--images {folder} holds no image; name a folder with some ({', '.join(_KINDS)})")
    return found


def _mark(files: Sequence[Path]) -> str:
    """Digest of the images' bytes."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def _measured(model: str, files: Sequence[Path], folder: Path) -> dict[str, Any]:
    """What a model's VAE makes of images; where it cannot be had, why."""
    from mlenergy.diffusion.weights.vae import Vae  # torch

    try:
        vae = Vae.load(model, detect_device()[0])
        multiple = latent_factor(find_architecture(model).components["vae"].config)
        images = [_fitting(file, max(multiple, _LEAST_PX), multiple) for file in files]
    except UserError as error:
        return {"reason": str(error)}
    _save_pairs(vae, images[:_SHOWN], _stem(folder, model))
    return measure_latents(images, vae.encode, vae.decode)


def _fitting(file: Path, least_px: int, multiple_px: int) -> Any:
    """An image, cut to what the VAE takes.

    Raises:
        UserError: it cannot be read, or is too small.
    """
    try:
        pixels = saved_pixels(file)
        if min(pixels.shape[:2]) < least_px:
            raise ValueError(f"its sides are not both {least_px} pixels or more")
        found = cropped(pixels, multiple_px)
    except (OSError, ValueError, SyntaxError) as error:  # Pillow raises all three for broken files
        raise UserError(f"{file} cannot be measured: {' '.join(str(error).split())}; take it away") from error
    return found


def _save_pairs(vae: Vae, images: Sequence[Any], stem: Path) -> None:
    from PIL import Image

    stem.parent.mkdir(parents=True, exist_ok=True)
    for number, pixels in enumerate(images, 1):
        for name, content in (("image", pixels), ("reconstruction", vae.decode(vae.encode(pixels)))):
            with written_aside(_pair_file(stem, number, name)) as aside:
                Image.fromarray(content).save(aside, "PNG")


def _stem(folder: Path, model: str) -> Path:
    return folder / "reconstructions" / hashlib.sha256(model.encode()).hexdigest()[:12]


def _pair_file(stem: Path, number: int, name: str) -> Path:
    return stem.with_name(f"{stem.name}-{number}-{name}.png")


def _pictures(
    options: LatentOptions, known: dict[str, Any], folder: Path
) -> Iterator[tuple[str, list[Picture]]]:
    for model in options.models:
        stem = _stem(folder, model)
        count = min(known.get(model, {}).get("images_count", 0), _SHOWN)
        files = [
            _pair_file(stem, n, name) for n in range(1, count + 1) for name in ("image", "reconstruction")
        ]
        if files and not _is_random(options, model):
            yield model, [Picture(file, "") for file in files]


def _read(folder: Path) -> dict[str, Any]:
    try:
        content = json.loads((folder / _FILE).read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


LATENT = Study("latent", LatentOptions, sweeps, report, after=after)
