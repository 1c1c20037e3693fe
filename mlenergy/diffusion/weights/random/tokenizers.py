"""Tokenizers of the published classes and sizes, built in the process.

The published vocabularies are data that this package does not have. These hold every group of
one to three letters instead, and placeholders up to the published size: ids reach as far, padded
lengths are the same, and a word becomes about two tokens (a published vocabulary: 1.3). The tiny
models' vocabularies have room for single letters only.
"""

from __future__ import annotations

import inspect
import itertools
import re
import string
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from tokenizers import pre_tokenizers
from transformers import BertTokenizer, CLIPTokenizer, GemmaTokenizer, T5Tokenizer

from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.models.architectures.reader import Tokenizer
from mlenergy.diffusion.models.hub import ModelFolder
from mlenergy.diffusion.weights.random.modules import component_class

_LETTERS = string.ascii_lowercase
_LONGER_IS_BETTER = {1: -12.0, 2: -10.0, 3: -8.0}  # log-probability by letters, so that long pieces win


def build_tokenizer(wanted: Tokenizer) -> Any:
    """The tokenizer with exactly `wanted.vocabulary` entries.

    Raises:
        UserError: its class is not known here.
    """
    name = wanted.class_path.rpartition(".")[2]
    builder = _BUILDERS.get(name)
    if builder is None:
        raise UserError(f"a {name} cannot be built without its files; known: {', '.join(_BUILDERS)}")
    return builder(wanted)


def saved_tokenizers(folder: ModelFolder) -> dict[str, Any]:
    """Name -> tokenizer, of a pipeline's folder.

    Raises:
        UserError: one cannot be read.
    """
    found = {}
    for name, entry in folder.components.items():
        if name.startswith("tokenizer"):
            try:
                found[name] = component_class(".".join(entry)).from_pretrained(folder.path / name)
            except (OSError, ValueError, KeyError) as error:
                raise UserError(
                    f"{folder.path}: a tokenizer cannot be read ({error}); copy its files there"
                ) from error
    return found


def _clip(wanted: Tokenizer) -> CLIPTokenizer:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ("<|startoftext|>", "<|endoftext|>")  # the last ids: CLIP finds its end token by the largest
    single = [*alphabet, *(f"{letter}</w>" for letter in alphabet)]
    merges = list(_merges())[: wanted.vocabulary - len(special) - len(single)]
    pieces = [*single, *("".join(pair) for pair in merges)]
    vocabulary = _numbered(_filled(pieces, wanted.vocabulary - len(special)) + list(special))
    options = {} if wanted.pad_token is None else {"pad_token": wanted.pad_token}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=wanted.model_max_length, **options)


def _merges() -> Iterator[tuple[str, str]]:
    """Letters to pairs, pairs to triples; inside a word and (</w>) at its end."""
    ends = [*_LETTERS, *(f"{letter}</w>" for letter in _LETTERS)]
    for first, last in itertools.product(_LETTERS, ends):
        yield first, last
    for first, second, last in itertools.product(_LETTERS, _LETTERS, ends):
        yield first + second, last


def _t5(wanted: Tokenizer) -> T5Tokenizer:
    words = [f"▁{group}" for group in _groups()]
    single = [sign for sign in string.printable if not sign.isspace()]
    inner = [group for group in _groups() if len(group) > 1]
    count = wanted.vocabulary - wanted.sentinels
    names = _filled(_unique(["<pad>", "</s>", "<unk>", "▁", *single, *words, *inner])[:count], count)
    scored = [(name, _score(name)) for name in names]
    return T5Tokenizer(vocab=scored, extra_ids=wanted.sentinels, model_max_length=wanted.model_max_length)


def _score(piece: str) -> float:
    if piece in ("<pad>", "</s>"):
        return 0.0
    letters = len(piece.lstrip("▁")) or 1
    return _LONGER_IS_BETTER.get(letters, -100.0)  # placeholders are never the best reading


def _bert(wanted: Tokenizer) -> BertTokenizer:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    signs = [sign for sign in string.printable if not sign.isspace() and not sign.isupper()]
    groups = _unique([*signs, *_groups()])[: (wanted.vocabulary - len(special)) // 2]
    pieces = [*special, *groups, *(f"##{group}" for group in groups)]
    return BertTokenizer(
        vocab=_numbered(_filled(pieces, wanted.vocabulary)), model_max_length=wanted.model_max_length
    )


def _gemma(wanted: Tokenizer) -> GemmaTokenizer:
    """Bytes, single signs, the words of a template, groups of letters."""
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    single = ["▁", "\n", *(sign for sign in string.printable if not sign.isspace())]
    base = [*special, *(f"<0x{byte:02X}>" for byte in range(256)), *single]
    words = _template_words(wanted)
    groups = (f"▁{group}" for group in _groups())
    # A merge adds one letter at the end, so that a piece needs its own beginnings; those of the words come
    # first, and no other piece takes their letters away.
    merges = dict.fromkeys(
        (piece[:end], piece[end]) for piece in (*words, *groups, *_groups()) for end in range(1, len(piece))
    )
    kept = list(merges)[: wanted.vocabulary - len(base)]
    pieces = [*base, *("".join(pair) for pair in kept)]
    vocabulary = _numbered(_filled(pieces, wanted.vocabulary))
    return GemmaTokenizer(
        vocab=vocabulary, merges=kept, model_max_length=wanted.model_max_length, add_bos_token=True
    )


def _template_words(wanted: Tokenizer) -> list[str]:
    """Words of the text that `words_of` names, each with the space before it; none where it names none."""
    if wanted.words_of is None:
        return []
    class_path, _, argument = wanted.words_of.rpartition(".")
    lines = inspect.signature(component_class(class_path).__call__).parameters[argument].default
    return [word.replace(" ", "▁") for word in _unique(re.findall(r" ?[A-Za-z]+", "\n".join(lines)))]


def _groups() -> Iterator[str]:
    """Every group of one, two and three letters."""
    for length in (1, 2, 3):
        for letters in itertools.product(_LETTERS, repeat=length):
            yield "".join(letters)


def _filled(pieces: list[str], size: int) -> list[str]:
    assert len(pieces) <= size, f"{len(pieces)} pieces do not fit a vocabulary of {size}"
    return pieces + [f"<placeholder_{number}>" for number in range(size - len(pieces))]


def _unique(pieces: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(pieces))


def _numbered(pieces: list[str]) -> dict[str, int]:
    return {piece: number for number, piece in enumerate(pieces)}


_BUILDERS: dict[str, Callable[[Tokenizer], Any]] = {
    "CLIPTokenizer": _clip,
    "T5Tokenizer": _t5,
    "BertTokenizer": _bert,
    "GemmaTokenizer": _gemma,
}
