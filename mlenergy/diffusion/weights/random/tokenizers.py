"""Tokenizers of the published classes and sizes, built in the process.

The published vocabularies are data that this package does not have. These hold every group of
one to three letters instead, and placeholders up to the published size: ids reach as far, padded
lengths are the same, and a word becomes about two tokens (a published vocabulary: 1.3). The tiny
models' vocabularies have room for single letters only.
"""

from __future__ import annotations

import inspect
import io
import itertools
import re
import string
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import sentencepiece
import tokenizers
from tokenizers import decoders, pre_tokenizers, processors
from tokenizers.models import BPE
from transformers import (
    BertTokenizer,
    ByT5Tokenizer,
    CLIPTokenizer,
    GemmaTokenizer,
    LlamaTokenizerFast,
    PreTrainedTokenizerFast,
    Qwen2Tokenizer,
    T5Tokenizer,
)

from mlenergy.diffusion.errors import UserError
from mlenergy.diffusion.models.architectures.reader import Tokenizer
from mlenergy.diffusion.models.hub import ModelFolder
from mlenergy.diffusion.weights.random.modules import component_class

_Entry = TypeVar("_Entry")
_LETTERS = string.ascii_lowercase
# Words that the pipelines of language models put around every prompt: each is one token, as in the published
# vocabularies, so that the text is as long as theirs, and Qwen-Image cuts off just its preamble of 34 tokens.
_AROUND_PROMPTS = (
    *("system", "user", "assistant", "Describe", "the", "image", "by", "detailing", "color", "shape", "size"),
    *("texture", "quantity", "text", "spatial", "relationships", "of", "objects", "and", "background"),
)
# Roles and texts between the marks of ChatML; Qwen3 closes an empty thought where it is not to think.
_CHAT = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{% if message.content is string %}"
    "{{ message.content }}{% else %}{% for part in message.content %}{{ part.text }}{% endfor %}{% endif %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
_SPACE = "Ġ"  # how a byte-level vocabulary writes a space
_SPACES = tuple((_SPACE * long, _SPACE * long) for long in (1, 2, 4))  # eight are one, as an indent
_CHATGLM_COMMANDS = 9  # its tokenizer numbers [MASK], [gMASK], sop and others after the pieces of its model
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
    pieces, merges = _merged_letters(wanted, special)
    return GemmaTokenizer(
        vocab=_numbered(pieces), merges=merges, model_max_length=wanted.model_max_length, add_bos_token=True
    )


def _llama(wanted: Tokenizer) -> LlamaTokenizerFast:
    """Llama 3's marks around roles, then as Gemma's: bytes, single signs, words of a template, groups."""
    named = ["<pad>", "<|begin_of_text|>", "<|end_of_text|>", "<unk>"]
    marks = ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    pieces, merges = _merged_letters(wanted, [*named, *marks], pairs=[("\n", "\n")])
    return LlamaTokenizerFast(
        vocab=_numbered(pieces),
        merges=merges,
        model_max_length=wanted.model_max_length,
        bos_token=named[1],
        eos_token=named[2],
        pad_token=named[0],
        additional_special_tokens=marks,
        add_prefix_space=False,
        add_bos_token=True,
        padding_side="right",
    )


def _merged_letters(
    wanted: Tokenizer, special: list[str], pairs: Iterable[tuple[str, str]] = ()
) -> tuple[list[str], list[tuple[str, str]]]:
    """Pieces and merges of a vocabulary of letters: `special`, bytes, signs, a template's words, groups."""
    single = ["▁", "\n", *(sign for sign in string.printable if not sign.isspace())]
    base = [*special, *(f"<0x{byte:02X}>" for byte in range(256)), *single]
    words = _template_words(wanted)
    groups = (f"▁{group}" for group in _groups())
    # A merge adds one letter at the end, so that a piece needs its own beginnings; those of the words come
    # first, and no other piece takes their letters away.
    spelt = (*words, *groups, *_groups())
    letters = ((piece[:end], piece[end]) for piece in spelt for end in range(1, len(piece)))
    merges = dict.fromkeys([*pairs, *letters])
    kept = list(merges)[: wanted.vocabulary - len(base)]
    return _filled(_unique([*base, *("".join(pair) for pair in kept)]), wanted.vocabulary), kept


def _template_words(wanted: Tokenizer) -> list[str]:
    """Words of the text that `words_of` names, each with the space before it; none where it names none."""
    if wanted.words_of is None:
        return []
    where, _, argument = wanted.words_of.rpartition(".")
    library, name, *method = where.split(".")
    call = getattr(component_class(f"{library}.{name}"), *(method or ["__call__"]))
    default = inspect.signature(call).parameters[argument].default
    if not isinstance(default, str):
        default = default["template"] if isinstance(default, Mapping) else "\n".join(default)
    text = default
    without_marks = re.sub(r"<\|.*?\|>", "\n", text)  # each mark is one entry already
    return [word.replace(" ", "▁") for word in _unique(re.findall(r" ?[A-Za-z]+", without_marks))]


def _qwen2(wanted: Tokenizer) -> Qwen2Tokenizer:
    """Bytes, the words around prompts, then groups of letters; every space is joined to the word after it."""
    special = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>")
    words = [word.replace("▁", _SPACE) for word in _template_words(wanted)]
    first = [*_SPACES, *_spelt(words)] if words else []
    vocabulary, merges = _bytes_and_merges(wanted.vocabulary, special, first)
    tokenizer = Qwen2Tokenizer(
        vocab=vocabulary,
        merges=merges,
        model_max_length=wanted.model_max_length,
        additional_special_tokens=list(special[1:]),
    )
    tokenizer.chat_template = _CHAT
    return tokenizer


def _fast(wanted: Tokenizer) -> PreTrainedTokenizerFast:
    """Llama 3's and GLM-4's: bytes and groups of letters, in the one class that has no rules of its own."""
    end, begin = "<|endoftext|>", "<|begin_of_text|>"
    vocabulary, merges = _bytes_and_merges(wanted.vocabulary, (end, begin))
    tokenizer = tokenizers.Tokenizer(BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    # Both begin every text with a mark, so that an empty one is not of no tokens.
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A", special_tokens=[(begin, vocabulary[begin])]
    )
    marks = {"bos_token": begin, "eos_token": end, "pad_token": end}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=wanted.model_max_length, padding_side="left", **marks
    )


def _bytes_and_merges(
    size: int, special: tuple[str, ...], first: Iterable[tuple[str, str]] = ()
) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary of `size` entries, the special ones last, and the merges that make its pieces of bytes.

    first: merges that come before all others.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pairs = _unique([*first, *_word_merges(), *_merges_after_spaces()])
    merges = pairs[: size - len(special) - len(alphabet)]
    pieces = [*alphabet, *("".join(pair) for pair in merges)]
    return _numbered(_filled(_unique(pieces), size - len(special)) + list(special)), merges


def _byt5(wanted: Tokenizer) -> ByT5Tokenizer:
    """Bytes, which need no vocabulary; three special entries and the sentinels come with them."""
    return ByT5Tokenizer(extra_ids=wanted.sentinels, model_max_length=wanted.model_max_length)


def _chatglm(wanted: Tokenizer) -> Any:
    """Kolors' own tokenizer, whose nine commands stand behind a SentencePiece model of groups of letters."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=(f"{group} {group}" for group in _groups() if len(group) == 3),
        model_writer=model,
        vocab_size=wanted.vocabulary - _CHATGLM_COMMANDS,
        model_type="bpe",
        normalization_rule_name="identity",
        num_threads=1,
        minloglevel=2,
    )
    folder = tempfile.TemporaryDirectory()
    file = Path(folder.name) / "tokenizer.model"
    file.write_bytes(model.getvalue())
    tokenizer = component_class(wanted.class_path)(str(file), model_max_length=wanted.model_max_length)
    tokenizer.folder = folder  # saving copies the file, so that it has to be there as long as the tokenizer
    return tokenizer


def _word_merges() -> Iterator[tuple[str, str]]:
    """Letter after letter to the whole word; those after a space first, or others would cut them."""
    yield from _spelt([*(f"{_SPACE}{word}" for word in _AROUND_PROMPTS), *_AROUND_PROMPTS])


def _spelt(words: Iterable[str]) -> Iterator[tuple[str, str]]:
    for whole in words:
        yield from ((whole[:end], whole[end]) for end in range(1, len(whole)))


def _merges_after_spaces() -> Iterator[tuple[str, str]]:
    """Letters to pairs, pairs to triples; a space joins the first group of its word."""
    for first, second in itertools.product(_LETTERS, _LETTERS):
        yield first, second
    for first, second, third in itertools.product(_LETTERS, _LETTERS, _LETTERS):
        yield first + second, third
    for letter in _LETTERS:
        yield "Ġ", letter
    for group in _groups():
        if len(group) > 1:
            yield "Ġ", group


def _groups() -> Iterator[str]:
    """Every group of one, two and three letters."""
    for length in (1, 2, 3):
        for letters in itertools.product(_LETTERS, repeat=length):
            yield "".join(letters)


def _filled(pieces: list[str], size: int) -> list[str]:
    assert len(pieces) <= size, f"{len(pieces)} pieces do not fit a vocabulary of {size}"
    return pieces + [f"<placeholder_{number}>" for number in range(size - len(pieces))]


def _unique(pieces: Iterable[_Entry]) -> list[_Entry]:
    return list(dict.fromkeys(pieces))


def _numbered(pieces: list[str]) -> dict[str, int]:
    return {piece: number for number, piece in enumerate(pieces)}


_BUILDERS: dict[str, Callable[[Tokenizer], Any]] = {
    "ByT5Tokenizer": _byt5,
    "ChatGLMTokenizer": _chatglm,
    "PreTrainedTokenizerFast": _fast,
    "CLIPTokenizer": _clip,
    "T5Tokenizer": _t5,
    "BertTokenizer": _bert,
    "GemmaTokenizer": _gemma,
    "LlamaTokenizerFast": _llama,
    "Qwen2Tokenizer": _qwen2,
}
