"""docs/capabilities.md from the committed results of the parity cases; nothing is measured here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from parity_case import Case
from parity_cases import APPROXIMATE, CASES, FAULTS

from mlenergy.diffusion.engines.diffusers.context_parallel import KNOWN_FAULTS as DIFFUSERS_FAULTS
from mlenergy.diffusion.engines.xdit.patches.registry import KNOWN_FAULTS, REFUSED, UNREACHABLE

Cases = Mapping[str, Mapping[str, Any]]

MODELS = tuple(dict.fromkeys(case.short for case in CASES))
_MODE_NAMES = {
    "data": "data-parallel",
    "cfg": "CFG-parallel",
    "pipefusion": "PipeFusion",
    "ring": "ring",
    "ulysses": "Ulysses",
    "tensor": "tensor-parallel",
    "parallel-vae": "parallel VAE",
}

_HEAD = """# What is supported, as the parity tests found it

This page is made by `python scripts/capabilities.py` from `tests/parity/results.json`; do not edit it.

Every number is the largest difference of any pixel, on a scale of 0 to 1, between the image of several
processes and the image of one process of plain diffusers: the same prompts and seeds, float32, tiny
pipelines with random weights on a CPU over gloo. At most {equal} counts as equal (data-parallel:
{equal_batch}, since another batch size rounds differently); `–` is refused before anything loads.
Products of three modes need eight processes and are not tested. Behind a number stand several calls:
batches of 1 to 3, changing and non-square sizes, even and uneven text lengths, guidance scales of 1 and
0, negative prompts, each family's own scheduler.

Measured with {versions}.
"""

_APPROXIMATE = """## PipeFusion as it is meant to run is approximate

With several patches, every step after the synchronous ones uses activations of the step before. The
image is then another one, by design. How far it is from the one-process image, with two stages, two
patches, one synchronous step of four, and random weights (trained ones were not measured):
"""

_EXACT = """What else could go wrong there is tested by itself: with one patch, or with all steps
synchronous, the image is equal; with attention that shows image tokens nothing of each other (so that
stale ones cannot matter) it is equal with several patches too; and Ulysses, ring or CFG-parallel beside
PipeFusion give the same image as PipeFusion without them.
"""

_AUTOREGRESSIVE = """## --engine autoregressive

This package's own engine, for models that predict an image scale by scale. Its one mode is data-parallel: two
ranks give the images of one process, image by image (`tests/engines/autoregressive/test_run.py`).

| modes | var | infinity |
| --- | --- | --- |
| data-parallel | at most 1e-5 | at most 1e-5 |
"""

_FAULTS = """## Faults of xfuser 0.7.0 that are patched

Each patch is applied to the named versions only. A test runs each of these set-ups without its patch and
fails once the fault no longer occurs, so that the patch can be dropped.
"""

_OF_DIFFUSERS = """## Faults of diffusers 0.42.1 that are passed by

The diffusers engine gives the model a plan of its own. A test runs each with diffusers' plan, as above.
"""


def render(results: Mapping[str, Any]) -> str:
    """The whole page."""
    cases: Cases = results["cases"]
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    parts = [_HEAD.format(equal="1e-5", equal_batch="5e-5", versions=versions)]
    for engine, title in (("xdit", "xdit (xfuser)"), ("diffusers", "diffusers")):
        own = [case for case in CASES if case.engine == engine]
        parts.append(f"## --engine {engine}\n\nThe {title} engine.\n\n{_modes_table(own, cases)}")
    parts.append(_AUTOREGRESSIVE)
    parts += [_APPROXIMATE, _approximate_table(cases), _EXACT]
    parts += [_FAULTS, _faults_table(cases), _OF_DIFFUSERS, _diffusers_table(cases), _unreachable()]
    return "\n".join(parts)


def label(case: Case) -> str:
    """The modes that a case uses, and for PipeFusion in which way."""
    degrees = case.degrees
    name = " × ".join(_MODE_NAMES[mode] for mode in degrees.modes) or "one process"
    if degrees.pipefusion == 1:
        return name
    if case.against is not None:
        return f"{name}, several patches (against PipeFusion alone)"
    if case.blind:
        return f"{name}, several patches, no stale tokens"
    several = (degrees.num_pipeline_patch or degrees.pipefusion) > 1
    return f"{name}, all steps synchronous" if several else f"{name}, one patch"


def shown(difference: float) -> str:
    """One digit: more would change from one CPU to the next."""
    if difference == 0:
        return "0"
    digits, _, exponent = f"{difference:.0e}".partition("e")
    return f"{digits}e{int(exponent)}" if difference < 1e-3 else f"{difference:.1g}"


def proven(cases: Cases, case: Case) -> bool:
    """Whether the committed results show that the case's images are equal."""
    found = cases[case.name]
    return "differences" in found and max(found["differences"]) <= case.threshold


def _modes_table(own: Sequence[Case], cases: Cases) -> str:
    labels = list(dict.fromkeys(label(case) for case in sorted(own, key=_order)))
    rows = [[name, *(_cell(name, model, own, cases) for model in MODELS)] for name in labels]
    return _table(["modes", *MODELS], rows)


def _order(case: Case) -> tuple[bool, int, int, str]:
    modes = case.degrees.modes
    return (case.degrees.pipefusion > 1, len(modes), case.world_size, label(case))


def _cell(name: str, model: str, own: Iterable[Case], cases: Cases) -> str:
    mine = [case for case in own if case.short == model and label(case) == name]
    if not mine:
        return "–"
    if not all(proven(cases, case) for case in mine):
        return "**fails**"
    return shown(max(max(cases[case.name]["differences"]) for case in mine))


def _approximate_table(cases: Cases) -> str:
    far = {case.short: max(cases[case.name]["differences"]) for case in APPROXIMATE}
    return _table(list(far), [[f"{difference:.2g}" for difference in far.values()]])


def _faults_table(cases: Cases) -> str:
    rows = []
    for fault in KNOWN_FAULTS:
        seen = [case for case in FAULTS if fault.name in case.without_patches]
        found = "; ".join(f"{case.short}: {_outcome(cases[case.name])}" for case in seen)
        rows.append(
            [fault.fault, found or "a test sees it in the calls", str(fault.versions), f"`{fault.upstream}`"]
        )
    return _table(["fault", "without the patch", "xfuser", "where"], rows)


def _diffusers_table(cases: Cases) -> str:
    rows = []
    for name, fault in DIFFUSERS_FAULTS.items():
        seen = [case for case in FAULTS if name in case.without_patches]
        rows.append([fault, "; ".join(f"{case.short}: {_outcome(cases[case.name])}" for case in seen)])
    return _table(["fault", "with diffusers' own plan"], rows)


def _outcome(found: Mapping[str, Any]) -> str:
    if "error" in found:
        return str(found["error"])
    return f"off by {max(found['differences']):.2g}"


def _unreachable() -> str:
    refused, never = (
        "\n".join(f"- {reason}" for reason in there.values()) for there in (REFUSED, UNREACHABLE)
    )
    return f"## Faults that are refused\n\n{refused}\n\n## Faults that cannot be reached\n\n{never}\n"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"
