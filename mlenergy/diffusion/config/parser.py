"""The one parser of every command line: groups of options, one spelling, mistakes as one line.

`command_line` reads the words into the dataclasses: the workload's name may stand anywhere, a flag may be
`--x` or `--no_x`, and a misspelt name gets a suggestion. tyro prints help and completion of the same classes.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import inspect
import io
import itertools
import operator
import os
import shutil
import sys
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import field as dataclass_field
from dataclasses import fields, make_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, TypeVar

import tyro

from mlenergy.diffusion.config.command_line import CommandLine, unpacked, value_type_of
from mlenergy.diffusion.errors import UserError

HELP_COLUMNS = 120
_METAVARS: Mapping[Any, str] = {int: "INT", float: "FLOAT", str: "TEXT", Path: "PATH"}
_PRINT, _WRITE = "--tyro-print-completion", "--tyro-write-completion"
_SHELLS = ("bash", "zsh", "fish")
_CONFIG = (tyro.conf.CascadeSubcommandArgs, tyro.conf.FlagCreatePairsOff)

T = TypeVar("T")


def option_group(title: str | None = None, *, prefixed: bool = False) -> Callable[[type[T]], type[T]]:
    """Decorate a dataclass whose fields are options, each described by the docstring below it.

    Args:
        title: of the group in help, where other classes inherit it.
        prefixed: call the options `--FIELD.NAME`, after the field that holds the group, instead of `--NAME`.
    """

    def decorate(cls: type[T]) -> type[T]:
        hints = typing.get_type_hints(cls, include_extras=True)
        descriptions = _descriptions(cls.__module__)[cls.__name__]
        for field in fields(cls):  # type: ignore[arg-type]
            if field.name not in inspect.get_annotations(cls):
                continue  # inherited from another group, which has described it
            hint, *metadata = unpacked(hints[field.name])
            # The description says what happens without a value; True and False are what a flag changes.
            says_default = isinstance(field.default, bool) or field.default in (None, "", ())
            metavar, hint_of_default = _metavar(hint), "" if says_default else None
            if tyro.conf.Positional in metadata:
                metavar = field.name.upper()
                if typing.get_origin(hint) is tuple:
                    metavar, hint_of_default = f"{metavar} [{metavar} ...]", "(required)"
            shown = tyro.conf.arg(
                help=descriptions[field.name],
                prefix_name=prefixed,
                metavar=metavar,
                help_behavior_hint=hint_of_default,
            )
            cls.__annotations__[field.name] = Annotated[(hint, shown, *metadata)]  # type: ignore[index]
        cls.group_title = title  # type: ignore[attr-defined]
        return cls

    return decorate


def parse(kind: type[T], argv: Sequence[str], prog: str) -> T:
    """Parse a command line into a dataclass that is an option group, or inherits some.

    Raises:
        UserError: one line, where the command line cannot be understood.
        SystemExit: after --help.
    """
    command_line = CommandLine.of(kind)  # type: ignore[arg-type]  # a class is hashable
    if command_line.asks_for_help(argv):
        _print_help(kind, command_line.help_words(argv), prog)
    # Refuses in one line what tyro would refuse in a box, or let pass.
    checked = read(kind, argv, prog)
    if any(word.rpartition("=")[2] == "None" for word in argv):
        return checked  # tyro takes this text for no value
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            parsed = _tyro(kind, command_line.in_order(argv), prog)
    except SystemExit as stop:
        raise AssertionError(f"tyro refuses what was checked: {complaint.getvalue()}") from stop
    own = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for name, value in vars(parsed).items():
        values |= {name: value} if name in own else vars(value)
    return kind(**values)


def read(kind: type[T], argv: Sequence[str], prog: str) -> T:
    """Read a command line without tyro, which takes 20 ms for one: for the thousands that a sweep plans.

    Equal to `parse`, which a test holds.

    Raises:
        UserError: one line, where the command line cannot be understood.
    """
    command_line = CommandLine.of(kind)  # type: ignore[arg-type]  # a class is hashable
    try:
        return kind(**command_line.values(argv))
    except UserError as error:
        raise _with_help(str(error), prog) from None


def print_completion(verbs: Mapping[str, type[Any]], argv: Sequence[str], prog: str) -> None:
    """Print a shell's completion script for a command with verbs, or write it to a file.

    Args:
        verbs: class of each verb's command line.
        argv: --tyro-print-completion SHELL, or --tyro-write-completion SHELL FILE.
        prog: name of the command.

    Raises:
        UserError: the shell or the file is missing.
    """
    words = [argv[0].replace("_", "-"), *argv[1:]]
    expected = {_PRINT: 2, _WRITE: 3}[words[0]]
    if len(words) != expected or words[1] not in _SHELLS:
        file = " and a file" if words[0] == _WRITE else ""
        raise UserError(f"{words[0]} needs one of {', '.join(_SHELLS)}{file}; see {prog} --help")
    # tyro's scripts do not complete the subcommands of a subcommand if their names have a colon. A workload's
    # name may be left out, so that its options can be completed as the verb's own.
    subcommands: list[Any] = [
        Annotated[titled(kind, has_subcommands=False), tyro.conf.subcommand(verb)]  # type: ignore[arg-type]
        for verb, kind in verbs.items()
    ]
    try:
        tyro.cli(
            functools.reduce(operator.or_, subcommands),
            args=words,
            prog=prog,
            use_underscores=True,
            config=_CONFIG,
        )
    except SystemExit:
        pass  # tyro ends so after the script
    except BrokenPipeError:
        raise
    except OSError as error:
        raise UserError(f"cannot write {words[2]}: {error.strerror}; choose another file") from None


# Cached, since tyro caches by class: with a new class each time, a sweep's planning parses twice as slowly.
@functools.cache
def titled(kind: type[Any], *, has_subcommands: bool = True) -> Any:
    """The class that tyro parses: inherited groups become fields, which gives each a title in help.

    Args:
        kind: class of a command line.
        has_subcommands: keep workloads as subcommands; otherwise the first one's options become the verb's.
    """
    groups: list[Any] = [
        base for base in reversed(kind.__mro__) if "group_title" in base.__dict__ and base is not kind
    ]
    if not groups:
        return kind if has_subcommands else _without_none(kind)
    hints = typing.get_type_hints(kind, include_extras=True)
    inherited = {field.name for group in groups for field in fields(group)}
    own_fields = [field for field in fields(kind) if field.name not in inherited]
    own: list[Any] = [(one.name, hints[one.name], dataclass_field(default=one.default)) for one in own_fields]
    if not has_subcommands:
        unions = {one.name: typing.get_args(unpacked(hints[one.name])[0]) for one in own_fields}
        own = [(name, _without_none(unpacked(members[0])[0])) for name, members in unions.items()]
        groups = list(map(_without_none, groups))
    # tyro would look for descriptions in the source, which this class lacks and which takes 30 ms.
    of_groups = [
        (group.group_title, Annotated[group, tyro.conf.arg(help=inspect.getdoc(group))]) for group in groups
    ]
    return make_dataclass(kind.__name__, [*own, *of_groups], kw_only=True)


def _without_none(kind: type[Any]) -> type[Any]:
    """The same options for a completion script, in which tyro would offer None beside an option's choices."""
    found: list[Any] = []
    hints = typing.get_type_hints(kind, include_extras=True)
    for one in fields(kind):
        hint, default = hints[one.name], one.default
        value_type, *metadata = unpacked(hint)
        choices = typing.get_args(value_type_of(value_type))
        if default is None and typing.get_origin(value_type_of(value_type)) is Literal:
            hint, default = Annotated[(value_type_of(value_type), *metadata)], choices[0]
        found.append((one.name, hint, dataclass_field(default=default)))
    changed = make_dataclass(kind.__name__, found, kw_only=True)
    changed.__doc__ = inspect.getdoc(kind)
    changed.group_title = getattr(kind, "group_title", None)  # type: ignore[attr-defined]
    return changed


def _with_help(sentence: str, prog: str) -> UserError:
    return UserError(
        f"{sentence} See {prog} --help" if sentence.endswith("?") else f"{sentence}; see {prog} --help"
    )


def _print_help(kind: type[Any], words: Sequence[str], prog: str) -> NoReturn:
    """Let tyro print help.

    Raises:
        SystemExit: afterwards.
    """
    with _columns(HELP_COLUMNS):
        _tyro(kind, words, prog)
    raise AssertionError("tyro ends the program after help")


def _tyro(kind: type[Any], words: Sequence[str], prog: str) -> Any:
    return tyro.cli(
        titled(kind),  # type: ignore[arg-type]  # a class is hashable
        args=words,
        prog=prog,
        description=inspect.getdoc(kind),
        use_underscores=True,
        config=_CONFIG,
    )


@functools.cache
def _descriptions(module: str) -> dict[str, dict[str, str]]:
    """Docstrings below the fields of every class in a module, each as one line.

    tyro would find them too, but keeps the line breaks of the source, which then stand in the middle of help.
    """
    found: dict[str, dict[str, str]] = {}
    for node in ast.parse(inspect.getsource(sys.modules[module])).body:
        if isinstance(node, ast.ClassDef):
            of_class = found.setdefault(node.name, {})
            for field, below in itertools.pairwise(node.body):
                match field, below:
                    case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(
                        value=ast.Constant(value=str(text))
                    ):
                        of_class[name] = " ".join(text.split())
    return found


def _metavar(hint: Any) -> str | None:
    """Placeholder of an option's value in help."""
    value_type = value_type_of(hint)
    if typing.get_origin(value_type) is Literal:
        name = "{" + ",".join(map(str, typing.get_args(value_type))) + "}"
    else:
        name = _METAVARS.get(value_type, "")
    return (f"{name} [{name} ...]" if typing.get_origin(hint) is tuple else name) or None


@contextlib.contextmanager
def _columns(most: int) -> Iterator[None]:
    """Let tyro see a terminal of at most `most` columns."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = str(min(most, shutil.get_terminal_size().columns))
    try:
        yield
    finally:
        del os.environ["COLUMNS"]
        if before is not None:
            os.environ["COLUMNS"] = before
