"""Errors of the hub and of diffusers' loader, as one line that says what to do: no torch."""

from __future__ import annotations

from collections.abc import Iterator

from mlenergy.diffusion.errors import UserError

# Class in huggingface_hub.errors -> what to tell the user; the most telling first.
_LINES = {
    "GatedRepoError": "{weights} is gated: accept its licence at {hub}/{weights}, "
    "then set HF_TOKEN to a token that may read it",
    "RevisionNotFoundError": "{weights} has no revision {revision!r}; name one that it has",
    "RepositoryNotFoundError": "{weights} is not on the hub, or is private; check the id, or set HF_TOKEN "
    "to a token for it",
    "RemoteEntryNotFoundError": "{weights} is not in diffusers' format: {reason}; give another model",
    "HFValidationError": "{weights} is no folder and no hub id; give a folder, or an id such as owner/name",
    "HfHubHTTPError": "the hub refused {weights}: {reason}; try again later",
}
_UNREACHABLE = (
    "{weights} is not in the local cache and the hub cannot be reached; check the network (and that "
    "HF_HUB_OFFLINE is not set), or give a folder that holds the model"
)


def explain(error: BaseException, weights: str, revision: str | None) -> UserError:
    """The UserError to raise for `error`.

    Diffusers falls back to its cache when the hub refuses, so the true reason may be
    the cause of what it raises: the whole chain is looked at.
    """
    if isinstance(error, UserError):
        return error
    from huggingface_hub import constants
    from huggingface_hub import errors as hub

    chain = list(_chain(error))
    for kind, line in _LINES.items():
        found = next((link for link in chain if isinstance(link, getattr(hub, kind))), None)
        if found is not None:
            told = {"weights": weights, "revision": revision, "reason": _first_line(found)}
            return UserError(line.format(hub=constants.ENDPOINT, **told))
    if any(
        isinstance(link, hub.LocalEntryNotFoundError | ConnectionError) or _is_network(link) for link in chain
    ):
        return UserError(_UNREACHABLE.format(weights=weights))
    return UserError(f"{weights} cannot be loaded: {_first_line(error)} Check its files and the options.")


def _is_network(error: BaseException) -> bool:
    """The hub's client speaks through httpx, whose transport errors are no ConnectionError."""
    return any(kind.__module__.startswith("httpx") for kind in type(error).__mro__)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
