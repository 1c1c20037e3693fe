"""The words of a command line against the options that there are: order, spelling, values, suggestions."""

from __future__ import annotations

import difflib
import functools
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from typing import Annotated, Any, Literal

import tyro

from mlenergy.diffusion.errors import UserError

_NUMBERS: Mapping[Any, str] = {int: "a whole number", float: "a number"}


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that was probably meant."""
    return next(iter(difflib.get_close_matches(name, [*known], 1)), None)


@dataclass(frozen=True)
class Option:
    """An option by its full name, such as `workload.batch_size`, and what follows it on a command line."""

    name: str
    value_type: Any  # of each value: int, float, str, Path, a Literal; bool for a flag
    takes: Literal["no value", "one value", "values"]
    default: Any = MISSING

    @property
    def negation(self) -> str:
        """The name that turns a flag off."""
        group, dot, own = self.name.rpartition(".")
        return f"{group}{dot}no_{own}"

    def check(self, value: str) -> None:
        """Refuse a value that its type does not allow.

        Raises:
            UserError: what the option takes instead.
        """
        if self.default is None and value == "None":
            return
        if typing.get_origin(self.value_type) is Literal:
            choices = [str(choice) for choice in typing.get_args(self.value_type)]
            if value not in choices:
                meant = nearest(value, choices)
                suggestion = f"; did you mean {meant}?" if meant else ""
                raise UserError(f"--{self.name} takes one of {', '.join(choices)}, not {value!r}{suggestion}")
        elif self.value_type in _NUMBERS:
            try:
                self.value_type(value)
            except ValueError:
                raise UserError(f"--{self.name} takes {_NUMBERS[self.value_type]}, not {value!r}") from None


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
    workloads: tuple[str, ...] = ()  # workload:text-to-image, …
    positionals: tuple[str, ...] = ()

    @classmethod
    @functools.cache  # a sweep's planning parses a command line a run
    def of(cls, kind: type[Any]) -> CommandLine:
        """All options of a class, those of its workloads included."""
        options: dict[str, Option] = {}
        workloads: tuple[str, ...] = ()
        positionals: tuple[str, ...] = ()
        hints = typing.get_type_hints(kind, include_extras=True)
        for field in fields(kind):
            hint, *metadata = unpacked(hints[field.name])
            members = [unpacked(member) for member in typing.get_args(hint)]
            if members and is_dataclass(members[0][0]):
                for workload, subcommand in members:
                    workloads += (f"{field.name}:{subcommand.name}",)
                    for option in cls.of(workload).options.values():
                        full_name = f"{field.name}.{option.name}"
                        options[full_name] = replace(option, name=full_name)
            elif tyro.conf.Positional in metadata:
                positionals += (field.name.upper(),)
            else:
                takes: Any = "no value" if hint is bool else "one value"
                if typing.get_origin(hint) is tuple and tyro.conf.UseAppendAction not in metadata:
                    takes = "values"
                options[field.name] = Option(field.name, value_type_of(hint), takes, field.default)
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
        for word in [*argv, "--"]:
            if _names_option(word):
                if before is not None and before.takes == "one value":
                    raise UserError(f"--{before.name} needs a value")
                if word == "--":
                    return
                option = self.option_of(word)
                yield Word(word, option, is_name=True)
                before = None if option.takes == "no value" or "=" in word else option
            elif before is None or (before.takes == "values" and word.startswith("workload:")):
                yield Word(word)
            else:
                yield Word(word, before)
                before = None if before.takes == "one value" else before

    def in_order(self, argv: Sequence[str]) -> list[str]:
        """The same command line, checked, with the workload's name first and each flag at most once.

        tyro takes a workload's options only after its name, and `--no_x` only where x is on by default.

        Raises:
            UserError: the first thing that is not understood, or what is missing.
        """
        end = argv.index("--") if "--" in argv else len(argv)
        if not {"-h", "--help"}.isdisjoint(argv[:end]):
            return [*[word for word in argv[:end] if word in self.workloads][:1], "--help"]
        flags: dict[str, str] = {}
        others: list[str] = []
        given: set[str] = set()
        free: list[str] = []
        for word in self.read(argv[:end]):
            if word.option is None:
                free.append(word.text)
                continue
            given.add(word.option.name)
            if word.option.takes == "no value":
                flags |= {word.option.name: self._flag(word.text, word.option)}
            else:
                others.append(word.text)
                if word.value is not None:
                    word.option.check(word.value)
        workload, positionals = self._placed([*free, *argv[end + 1 :]])
        self._check_complete(given, workload, positionals)
        return [
            *workload,
            *filter(None, flags.values()),
            *others,
            *(["--", *positionals] if positionals else []),
        ]

    @functools.cached_property
    def _by_name(self) -> Mapping[str, Option]:
        """Every option by its name, and every flag also by the name that turns it off."""
        flags = [option for option in self.options.values() if option.takes == "no value"]
        return {**{flag.negation: flag for flag in flags}, **self.options}

    @staticmethod
    def _flag(word: str, option: Option) -> str:
        """The flag as tyro takes it: nothing where it is the default."""
        name, equals, _ = word[2:].partition("=")
        if equals:
            raise UserError(f"--{option.name} takes no value; write --{option.name} or --{option.negation}")
        turns_on = name.replace("-", "_") == option.name
        return "" if turns_on == option.default else f"--{option.name if turns_on else option.negation}"

    def _placed(self, words: Sequence[str]) -> tuple[list[str], list[str]]:
        """The workload's name and the positional words, of all that belong to no option."""
        workload: list[str] = []
        positionals: list[str] = []
        for word in words:
            if word in self.workloads and not workload:
                workload.append(word)
            elif self.workloads and word.startswith("workload:") and not workload:
                meant = self._near_workload(word)
                known = f"did you mean {meant}?" if meant else f"use one of {', '.join(self.workloads)}"
                raise UserError(f"there is no {word}; {known}")
            elif len(positionals) < len(self.positionals):
                positionals.append(word)
            else:
                meant = None if workload else self._near_workload(word)
                suggestion = f"; did you mean {meant}?" if meant else ""
                raise UserError(f"{word!r} is neither an option nor an option's value{suggestion}")
        return workload, positionals

    def _near_workload(self, word: str) -> str | None:
        by_own_name = {name.partition(":")[2]: name for name in self.workloads}
        return by_own_name.get(nearest(word.removeprefix("workload:"), by_own_name) or "")

    def _check_complete(self, given: set[str], workload: Sequence[str], positionals: Sequence[str]) -> None:
        lacking = [
            f"--{one.name}"
            for one in self.options.values()
            if one.default is MISSING and one.name not in given
        ]
        lacking += self.positionals[len(positionals) :]
        if lacking:
            example = [f"; for example {name} --workload.model_id tiny/flux" for name in self.workloads[:1]]
            raise UserError(f"required: {', '.join(lacking)}{'' if workload else ''.join(example)}")


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
