"""The words of a command line against the options that there are: order, spelling, values, suggestions."""

from __future__ import annotations

import functools
import itertools
import types
import typing
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from typing import Annotated, Any

import tyro

from mlenergy.diffusion.config.option import MayBeEmpty, Option, Range, nearest
from mlenergy.diffusion.errors import UserError


@dataclass(frozen=True)
class Word:
    """A word of a command line, with the option that it names or is a value of."""

    text: str
    option: Option | None = None
    is_name: bool = False

    @property
    def value(self) -> str | None:
        """The option's value in this word: `3` in `3` and in `--seed=3`."""
        if not self.is_name:
            return self.text
        _, equals, value = self.text.partition("=")
        return value if equals else None


@dataclass(frozen=True)
class CommandLine:
    """The names that a command line may hold."""

    options: Mapping[str, Option]
    workloads: Mapping[str, type[Any]] = field(default_factory=dict)  # workload:text-to-image -> its class
    positionals: tuple[Option, ...] = ()

    @classmethod
    @functools.cache  # a sweep's planning parses a command line a run
    def of(cls, kind: type[Any]) -> CommandLine:
        """All options of a class, those of its workloads included."""
        options: dict[str, Option] = {}
        workloads: dict[str, type[Any]] = {}
        positionals: tuple[Option, ...] = ()
        hints = typing.get_type_hints(kind, include_extras=True)
        for one in fields(kind):
            hint, *metadata = unpacked(hints[one.name])
            members = [unpacked(member) for member in typing.get_args(hint)]
            if members and is_dataclass(members[0][0]):
                for workload, subcommand in members:
                    workloads[f"{one.name}:{subcommand.name}"] = workload
                    for option in cls.of(workload).options.values():
                        full_name = f"{one.name}.{option.name}"
                        options.setdefault(full_name, replace(option, name=full_name))
            elif tyro.conf.Positional in metadata:
                positionals += (_option(one.name.upper(), hint, metadata, one.default),)
            else:
                options[one.name] = _option(one.name, hint, metadata, one.default)
        return cls(options, workloads, positionals)

    def option_of(self, word: str) -> Option:
        """The option that a word such as `--batch-sizes` or `--workload.seed=3` names.

        Raises:
            UserError: there is none; with the one that was probably meant.
        """
        written = word.partition("=")[0]
        name = written.lstrip("-").replace("-", "_")
        if written.startswith("--") and name in self._by_name:
            return self._by_name[name]
        full_names = {full.rpartition(".")[2]: full for full in self.options}
        full_names |= {full: full for full in (*self._by_name, "help")}
        own_name = name.rpartition(".")[2]
        meant = own_name if own_name in full_names else nearest(name, full_names)
        meant = meant or nearest(own_name, full_names)
        raise UserError(
            f"there is no option {written}" + (f"; did you mean --{full_names[meant]}?" if meant else "")
        )

    def read(self, argv: Sequence[str]) -> Iterator[Word]:
        """Every word, with the option that it names or is a value of.

        Raises:
            UserError: an option does not exist, or lacks its value.
        """
        before: Option | None = None  # takes the next word
        is_waiting = False  # for its first value
        for word in [*argv, "--"]:
            if _names_option(word):
                _check_value(before if is_waiting else None)
                if word == "--":
                    return
                option = self.option_of(word)
                yield Word(word, option, is_name=True)
                before = None if option.takes == "no value" or "=" in word else option
                is_waiting = before is not None
            elif before is None or (before.takes == "values" and word.startswith("workload:")):
                _check_value(before if is_waiting else None)
                yield Word(word)
            else:
                yield Word(word, before)
                is_waiting = False
                before = None if before.takes == "one value" else before

    def asks_for_help(self, argv: Sequence[str]) -> bool:
        """True where --help stands among the options."""
        return not {"-h", "--help"}.isdisjoint(_before_end(argv))

    def help_words(self, argv: Sequence[str]) -> list[str]:
        """The words of a command line that decide which help it asks for."""
        return [*[word for word in _before_end(argv) if word in self.workloads][:1], "--help"]

    def values(self, argv: Sequence[str]) -> dict[str, Any]:
        """Arguments of the class, checked: what is given by its own options, and the workload it names.

        Raises:
            UserError: the first thing that is not understood, or what is missing.
        """
        found: dict[str, Any] = {}
        free: list[str] = []
        for word in self.read(_before_end(argv)):
            option = word.option
            if option is None:
                free.append(word.text)
            elif option.takes == "no value":
                found[option.name] = _flag(word.text, option)
            else:
                if word.is_name and option.takes == "values":
                    found[option.name] = ()
                if word.value is not None:
                    value = option.value_of(word.value)
                    many = option.takes == "values" or option.appends
                    found[option.name] = (*found.get(option.name, ()), value) if many else value
        workload, positionals = self._placed([*free, *argv[len(_before_end(argv)) + 1 :]])
        self._check_complete(found, workload, positionals)
        for number, option in enumerate(self.positionals):
            many = option.takes == "values"  # the last one may take all that are left
            texts = positionals[number:] if many else positionals[number : number + 1]
            values = tuple(option.value_of(text) for text in texts)
            found[option.name.lower()] = values if many else values[0]
        return self._with_workload(found, workload or self._workload_of(found))

    def in_order(self, argv: Sequence[str]) -> list[str]:
        """A checked command line as tyro takes it: the workload's name first, each flag at most once.

        tyro takes a workload's options only after its name, and `--no_x` only where x is on by default.
        """
        flags: dict[str, list[str]] = {}
        others: list[str] = []
        free: list[str] = []
        given: set[str] = set()
        before_end = _before_end(argv)
        for word in self.read(before_end):
            option = word.option
            if option is not None:
                given.add(option.name)
            if option is None:
                free.append(word.text)
            elif option.takes == "no value":
                is_on = _flag(word.text, option)
                spelled = f"--{option.name if is_on else option.negation}"
                flags[option.name] = [] if is_on == option.default else [spelled]
            else:
                others.append(word.text)
        workload, positionals = self._placed([*free, *argv[len(before_end) + 1 :]])
        workload = workload or self._workload_of(given)
        first = [] if workload is None else [workload]
        last = ["--", *positionals] if positionals else []
        return [*first, *itertools.chain.from_iterable(flags.values()), *others, *last]

    def _workload_of(self, given: Collection[str]) -> str | None:
        """The workload where none is named: the first that has all options of a workload that are given."""
        for name, kind in self.workloads.items():
            at = f"{name.partition(':')[0]}."
            if {one.removeprefix(at) for one in given if one.startswith(at)} <= {
                f.name for f in fields(kind)
            }:
                return name
        return next(iter(self.workloads), None)

    def _with_workload(self, found: Mapping[str, Any], name: str | None) -> dict[str, Any]:
        """The same values, with those of the workload in an object of their own."""
        own = {name: value for name, value in found.items() if "." not in name}
        for workload, kind in self.workloads.items():
            if workload == name:
                at = f"{workload.partition(':')[0]}."
                parts = {n.removeprefix(at): value for n, value in found.items() if n.startswith(at)}
                self._check_belong(workload, kind, parts)
                own[at[:-1]] = kind(**parts)
        return own

    def _check_belong(self, workload: str, kind: type[Any], parts: Mapping[str, Any]) -> None:
        """Refuse options of another workload than the one that is named."""
        own = {one.name for one in fields(kind)}
        for part in parts:
            if part not in own:
                field, others = workload.partition(":")[0], self.workloads.items()
                other = next(name for name, one in others if part in {own.name for own in fields(one)})
                raise UserError(f"--{field}.{part} belongs to {other}, and this is {workload}")

    @functools.cached_property
    def _by_name(self) -> Mapping[str, Option]:
        """Every option by its name, and every flag also by the name that turns it off."""
        flags = [option for option in self.options.values() if option.takes == "no value"]
        return {**{flag.negation: flag for flag in flags}, **self.options}

    @property
    def _takes_the_rest(self) -> bool:
        """True where the last positional word may be several."""
        return bool(self.positionals) and self.positionals[-1].takes == "values"

    def _placed(self, words: Sequence[str]) -> tuple[str | None, list[str]]:
        """Of all words that belong to no option: the workload's name, if any, and the positional ones."""
        workload: str | None = None
        positionals: list[str] = []
        for word in words:
            if word in self.workloads and not workload:
                workload = word
            elif self.workloads and word.startswith("workload:") and not workload:
                meant = self._near_workload(word)
                known = f"did you mean {meant}?" if meant else f"use one of {', '.join(self.workloads)}"
                raise UserError(f"there is no {word}; {known}")
            elif len(positionals) < len(self.positionals) or self._takes_the_rest:
                positionals.append(word)
            else:
                meant = None if workload else self._near_workload(word)
                suggestion = f"; did you mean {meant}?" if meant else ""
                raise UserError(f"{word!r} is neither an option nor an option's value{suggestion}")
        return workload, positionals

    def _near_workload(self, word: str) -> str | None:
        by_own_name = {name.partition(":")[2]: name for name in self.workloads}
        return by_own_name.get(nearest(word.removeprefix("workload:"), by_own_name) or "")

    def _check_complete(
        self, given: Mapping[str, Any], workload: str | None, positionals: Sequence[str]
    ) -> None:
        lacking = [
            f"--{one.name}"
            for one in self.options.values()
            if one.default is MISSING and one.name not in given
        ]
        places = self.positionals[len(positionals) :]
        lacking += [one.name for one in places if one.default is MISSING]
        if lacking:
            first = None if workload else next(iter(self.workloads), None)
            example = "" if first is None else f"; for example {first} --workload.model_id tiny/flux"
            raise UserError(f"required: {', '.join(lacking)}{example}")


def _option(name: str, hint: Any, metadata: Sequence[Any], default: Any) -> Option:
    """The option of a dataclass' field."""
    appends = tyro.conf.UseAppendAction in metadata
    takes: Any = "no value" if hint is bool else "one value"
    return Option(
        name,
        value_type_of(hint),
        "values" if typing.get_origin(hint) is tuple and not appends else takes,
        default,
        appends,
        next((one for one in metadata if isinstance(one, Range)), None),
        any(isinstance(one, MayBeEmpty) for one in metadata),
    )


def _check_value(waiting: Option | None) -> None:
    """Refuse an option that still waits for its value."""
    if waiting is not None:
        raise UserError(f"--{waiting.name} needs a value")


def _flag(word: str, option: Option) -> bool:
    """True where the word turns a flag on."""
    name, equals, _ = word[2:].partition("=")
    if equals:
        raise UserError(f"--{option.name} takes no value; write --{option.name} or --{option.negation}")
    return name.replace("-", "_") == option.name


def _before_end(argv: Sequence[str]) -> Sequence[str]:
    """The words before `--`, after which none is an option."""
    return argv[: argv.index("--")] if "--" in argv else argv


def _names_option(word: str) -> bool:
    """True for an option, False for a value, which may be a negative number."""
    return word.startswith("--") or (word[:1] == "-" and word[1:2].isalpha() and word not in ("-inf", "-nan"))


def unpacked(hint: Any) -> tuple[Any, ...]:
    """A type and what `Annotated` adds to it."""
    return typing.get_args(hint) if typing.get_origin(hint) is Annotated else (hint,)


def value_type_of(hint: Any) -> Any:
    """X in X, in `X | None` and in `tuple[X, ...]`."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType, tuple):
        return next(one for one in typing.get_args(hint) if one is not types.NoneType)
    return hint
