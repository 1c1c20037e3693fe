"""One metric over saved images: in batches, kept as they are computed, so that a second call goes on."""

from __future__ import annotations

import functools
import hashlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from mlenergy.diffusion.environment.extras import missing_extra
from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.quality.extractor import Identity, versions
from mlenergy.diffusion.quality.images import ImageSet
from mlenergy.diffusion.quality.store import Store

if TYPE_CHECKING:
    import numpy as np
    import torch

    from mlenergy.diffusion.quality.clip import Clip
    from mlenergy.diffusion.quality.distances import Statistics
    from mlenergy.diffusion.quality.images import Pixels
    from mlenergy.diffusion.quality.inception_features import FeatureExtractor
    from mlenergy.diffusion.quality.lpips import Lpips

    Array = np.ndarray[Any, np.dtype[Any]]

OF_SETS, OF_PAIRS, OF_PROMPTS = ("fid", "kid"), ("lpips", "ssim", "psnr_db"), ("clip_score",)
METRICS = (*OF_SETS, *OF_PROMPTS, *OF_PAIRS)
DEFAULT_CLIP = "openai/clip-vit-base-patch32"  # that of CLIPScore's paper, and of MLPerf
Progress = Callable[[str, int, int], None]  # what is computed, how many are done, of how many


@dataclass(frozen=True)
class Extractors:
    """Networks by file, folder or hub id; docs/quality.md says which files fit."""

    inception: str | None = None
    preprocessing: str = "pytorch-fid"
    clip: str | None = None
    clip_revision: str | None = None
    lpips: str | None = None


@dataclass(frozen=True)
class Settings:
    """How metrics are computed."""

    batch_size: int = 16  # images in memory at a time; pairs count once
    device: str = "auto"
    kid_subsets: int = 100
    kid_subset_size: int | None = None
    seed: int = 0  # of KID's subsets


@dataclass
class Evaluation:
    """Metrics over the images of one run; networks load when the first metric needs them.

    store: of the run. others: of runs that may know the reference's features already; they are only read.
    """

    images: ImageSet
    reference: ImageSet | Statistics | None
    extractors: Extractors
    settings: Settings
    store: Store
    others: Sequence[Store] = ()
    progress: Progress = lambda what, done, total: None

    def metric(self, name: str) -> dict[str, Any]:
        """An entry of the result's `quality.metrics`.

        Raises:
            UserError: it cannot be computed of these images, or its extractor cannot be had.
        """
        entry = {"fid": self._fid, "kid": self._kid, "clip_score": self._clip_score}.get(name)
        found = entry() if entry is not None else self._of_pairs(name)
        return {
            "value": None,
            "reason": None,
            "images": len(self.images),
            "images_sha256": self.images.sha256,
            "reference": None if name in OF_PROMPTS else self._described_reference(),
            "notes": [],
            **found,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "versions": versions(),
        }

    def _fid(self) -> dict[str, Any]:
        self._require_torchmetrics("FID")
        from mlenergy.diffusion.quality.distances import frechet

        reference = self.reference
        assert reference is not None
        others = len(reference) if isinstance(reference, ImageSet) else None
        if len(self.images) < 2 or (others is not None and others < 2):
            of_reference = "its statistics" if others is None else str(others)
            raise UserError(
                f"FID needs 2 images and 2 of the reference, here are {len(self.images)} and {of_reference}; "
                "make more images"
            )
        features = self._features(self.images, "FID, images")
        target = self._features(reference, "FID, reference") if isinstance(reference, ImageSet) else reference
        count = features.shape[1]
        sizes = {"images": len(self.images)} | ({} if others is None else {"images of the reference": others})
        few = ", ".join(f"{size} {what}" for what, size in sizes.items() if size <= count)
        notes = []
        if few:
            notes.append(
                f"{few} for {count} features: the covariance lacks full rank and the FID is too large; "
                "compare it only with FIDs of as many images, or use KID"
            )
        return {
            "value": frechet(features, target),
            "extractor": self._inception.identity.as_dict(),
            "settings": {"features": count},
            "notes": notes,
        }

    def _kid(self) -> dict[str, Any]:
        self._require_torchmetrics("KID")
        from mlenergy.diffusion.quality.distances import kernel, subset_size

        assert isinstance(self.reference, ImageSet)
        count = self.settings.kid_subsets
        size = subset_size(len(self.images), len(self.reference), self.settings.kid_subset_size)
        features = self._features(self.images, "KID, images")
        of_reference = self._features(self.reference, "KID, reference")
        mean, deviation = kernel(features, of_reference, subsets=count, size=size, seed=self.settings.seed)
        settings = {"features": features.shape[1], "subsets": count, "subset_size": size}
        return {
            "value": mean,
            "standard_deviation": deviation,
            "extractor": self._inception.identity.as_dict(),
            "settings": {**settings, "seed": self.settings.seed, "kernel": "(x·y / features + 1)³"},
        }

    def _clip_score(self) -> dict[str, Any]:
        texts = [image.text for image in self.images.images]
        lacking = next((image.name for image in self.images.images if image.text is None), None)
        if lacking is not None:
            raise UserError(
                f"CLIP score needs the prompt of each image; {lacking} has none "
                "(images of a class-conditional model never have one)"
            )
        clip = self._clip
        keys = [_key(image.sha256, image.text or "") for image in self.images.images]

        def of_batch(indices: Sequence[int]) -> Iterator[Array]:
            import numpy as np

            found = clip.scores(list(self.images.pixels(indices)), [texts[index] or "" for index in indices])
            yield from (np.array([one], np.float64) for one in found)

        scores = self._stored("CLIP score", clip.identity, keys, of_batch)[:, 0]
        cut = sum(clip.is_cut(text or "") for text in texts)
        notes = [f"{cut} of {len(texts)} prompts are longer than the model reads; their ends are left out"]
        return {
            **_spread(scores),
            "extractor": clip.identity.as_dict(),
            "settings": {"scale": 100},
            "notes": notes if cut else [],
        }

    def _of_pairs(self, name: str) -> dict[str, Any]:
        import numpy as np

        reference = self.reference
        assert isinstance(reference, ImageSet) and len(reference) == len(self.images)
        one, other = self.images.images, reference.images
        keys = [_key(a.sha256, b.sha256) for a, b in zip(one, other, strict=True)]
        if name == "lpips":
            self._require_torchmetrics("LPIPS")
        compare, identity = self._comparison(name)

        def of_batch(indices: Sequence[int]) -> Iterator[Array]:
            pairs = zip(indices, self.images.pixels(indices), reference.pixels(indices), strict=True)
            for _, group in itertools.groupby(pairs, lambda pair: (pair[1].shape, pair[2].shape)):
                numbers, images, others = zip(*group, strict=True)
                if images[0].shape != others[0].shape:
                    raise UserError(
                        f"{one[numbers[0]].name} and {other[numbers[0]].name} differ in size; {name} needs "
                        "images of one size: leave it out of --metrics"
                    )
                for value in compare(images, others):
                    yield np.array([np.nan if value is None else value], np.float64)

        label = {"lpips": "LPIPS", "ssim": "SSIM", "psnr_db": "PSNR"}[name]
        values = self._stored(label, identity, keys, of_batch)[:, 0]
        # PSNR of identical images is infinite, which no mean can hold.
        identical = {"identical": int(np.isnan(values).sum())} if name == "psnr_db" else {}
        return {
            **_spread(values),
            **identical,
            "extractor": identity.as_dict() if name == "lpips" else None,
            "settings": dict(identity.settings),
        }

    def _comparison(
        self, name: str
    ) -> tuple[Callable[[Sequence[Pixels], Sequence[Pixels]], Sequence[float | None]], Identity]:
        if name == "lpips":
            return self._lpips.distances, self._lpips.identity
        from mlenergy.diffusion.quality.reference import psnr_db, ssim

        compare: Callable[[Pixels, Pixels], float | None] = {"ssim": ssim, "psnr_db": psnr_db}[name]
        about: dict[str, dict[str, Any]] = {
            "ssim": {"window_px": 11, "sigma_px": 1.5},
            "psnr_db": {"peak": 255},
        }
        identity = Identity(name, "", None, settings=about[name])
        return lambda images, others: list(map(compare, images, others)), identity

    def _features(self, images: ImageSet, label: str) -> Array:
        extractor = self._inception

        def of_batch(indices: Sequence[int]) -> Iterator[Array]:
            for _, group in itertools.groupby(images.pixels(indices), lambda image: image.shape):
                yield from extractor.features(list(group))

        return self._stored(label, extractor.identity, [image.sha256 for image in images.images], of_batch)

    def _stored(
        self,
        label: str,
        identity: Identity,
        keys: Sequence[str],
        of_batch: Callable[[Sequence[int]], Iterator[Array]],
    ) -> Array:
        """Values of all inputs: those that are kept, and the rest computed and kept batch by batch.

        Returns:
            (inputs, numbers of each).
        """
        import numpy as np

        found = self.store.get(identity.key, keys)
        for other in self.others:
            more = other.get(identity.key, [key for key in keys if key not in found])
            self.store.put(identity.key, more)
            found |= more
        first = {key: index for index, key in reversed(list(enumerate(keys)))}
        missing = sorted(index for key, index in first.items() if key not in found)
        done = len(first) - len(missing)
        self.progress(label, done, len(first))
        for start in range(0, len(missing), self.settings.batch_size):
            part = missing[start : start + self.settings.batch_size]
            values = _batch_values(of_batch, part)
            batch = {keys[index]: value for index, value in zip(part, values, strict=True)}
            self.store.put(identity.key, batch)
            found |= batch
            done += len(part)
            self.progress(label, done, len(first))
        return np.stack([found[key] for key in keys])

    def _described_reference(self) -> dict[str, Any] | None:
        reference = self.reference
        if reference is None:
            return None
        if isinstance(reference, ImageSet):
            place, kind, count = reference.place, reference.kind, len(reference)
            return {"path": place, "kind": kind, "images": count, "sha256": reference.sha256}
        return {"path": reference.place, "kind": "statistics", "images": None, "sha256": reference.sha256}

    @functools.cached_property
    def _device(self) -> torch.device:
        from mlenergy.diffusion.quality.extractor import device_of

        return device_of(self.settings.device)

    @functools.cached_property
    def _inception(self) -> FeatureExtractor:
        from mlenergy.diffusion.quality.inception_features import FeatureExtractor

        weights = self.extractors.inception
        if weights is None:
            raise UserError(
                "FID and KID need --inception FILE, the weights of Inception v3; docs/quality.md names them"
            )
        return FeatureExtractor(weights, self.extractors.preprocessing, self._device)

    @functools.cached_property
    def _clip(self) -> Clip:
        from mlenergy.diffusion.quality.clip import load_clip

        return load_clip(self.extractors.clip or DEFAULT_CLIP, self.extractors.clip_revision, self._device)

    @functools.cached_property
    def _lpips(self) -> Lpips:
        from mlenergy.diffusion.quality.lpips import Lpips

        if self.extractors.lpips is None:
            raise UserError(
                "LPIPS needs --lpips FILE, the weights of AlexNet or VGG16; docs/quality.md names them"
            )
        return Lpips("--lpips", self.extractors.lpips, self._device)

    def _require_torchmetrics(self, metric: str) -> None:
        missing = missing_extra("torchmetrics", "quality")
        if missing is not None:
            raise UserError(f"{metric} {missing}")


def _batch_values(of_batch: Callable[[Sequence[int]], Iterator[Array]], part: Sequence[int]) -> list[Array]:
    """Values of a batch, in full float32: convolutions on GPUs would otherwise round to TF32's 10 bits."""
    import torch

    precise = {"enabled": True, "benchmark": False, "deterministic": True, "allow_tf32": False}
    try:
        with torch.backends.cudnn.flags(**precise):
            return list(of_batch(part))
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise UserError("a batch of images does not fit into memory; lower --batch_size") from error


def _spread(values: Array) -> dict[str, Any]:
    """Mean, standard deviation and minimum over the images, and each image's own; NaN is none."""
    import numpy as np

    known = values[~np.isnan(values)]
    if not len(known):
        return {
            "value": None,
            "reason": "all images are identical to the reference's",
            "per_image": [None] * len(values),
        }
    return {
        "value": float(known.mean()),
        "standard_deviation": float(known.std(ddof=1)) if len(known) > 1 else None,
        "minimum": float(known.min()),
        "maximum": float(known.max()),
        "per_image": [None if np.isnan(one) else float(one) for one in values],
    }


def _key(one: str, other: str) -> str:
    return hashlib.sha256(f"{one}\n{other}".encode("utf-8", "surrogatepass")).hexdigest()
