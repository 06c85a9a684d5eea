"""docs/commands.md, from the parsers: ``python -m tests.docs.command_tables`` writes it."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from harmony_agent.cli import parser as parser_of_agent
from harmony_control.cli import exits
from harmony_control.cli.parser import parser as parser_of_operators

__all__ = ["EXITS", "PAGE", "commands", "page"]

PAGE = Path(__file__).parents[2] / "docs/commands.md"
EXITS: Mapping[int, str] = {
    exits.CONVERGED: "in order, or done",
    exits.FAILED: "a Score failed, or a check",
    exits.USAGE: "bad input or usage",
    exits.REFUSED: "refused before anything was pushed",
    exits.NO_ANSWER: "not reachable, or no answer in time",
    exits.CHANGES: "a plan has changes",
    exits.DEFECT: "a defect in `harmony` itself; `HARMONY_DEBUG=1` shows where",
    130: "interrupted",
    141: "nobody read the output to its end",
}
_INTRODUCTION = """\
# Commands

All commands. `harmony` is for an operator's machine, `harmony-agent` for a device. `python -m
tests.docs.command_tables` makes this page from the code, and a test checks it; `--help` of each command shows
the same.

No command starts a pager, because commands that follow something would hang in it. Use `harmony events pi-1 |
less`. Text is not wrapped, so you can search and copy whole lines; only tables fit the terminal.
There is no completion for fish, because the library that writes the others does not support it.
"""
_OF_AGENT = """\
`harmony-agent` exits with 0; with 1 if `check` finds a problem, or you answer no; with 2 for a wrong
configuration. `load` exits like `harmony push-score`: 0, 1, 2 or 4; and with 3 if the device refuses the
bundle.
"""
_COMMON = ("--home", "--json", "-o", "--no-color")
"""What every command of `harmony` takes, and is told once."""
Found = tuple[str, argparse.ArgumentParser, str]


def _actions(parser: argparse.ArgumentParser) -> Sequence[argparse.Action]:
    return parser._actions


def commands(parser: argparse.ArgumentParser) -> Iterator[Found]:
    """Yield each command below *parser*, by its whole name, with its parser and what it does."""
    for action in _actions(parser):
        if isinstance(action, argparse._SubParsersAction):  # pyright: ignore[reportPrivateUsage]
            texts = {each.dest: each.help or "" for each in action._get_subactions()}
            for name, made in vars(action)["choices"].items():
                yield made.prog, made, texts[name]
                yield from commands(made)


def _told(
    parser: argparse.ArgumentParser, common: Sequence[argparse.Action]
) -> list[argparse.Action]:
    told = [(each.option_strings, each.help) for each in common]
    return [
        each
        for each in _actions(parser)
        if each.help is not argparse.SUPPRESS
        and not isinstance(each, argparse._HelpAction | argparse._SubParsersAction)  # pyright: ignore[reportPrivateUsage]
        and (each.option_strings, each.help) not in told
    ]


def _value(action: argparse.Action) -> str:
    """What follows an option, or stands for an argument, in a command."""
    if action.nargs == 0:
        return ""
    if action.choices is not None and action.metavar is None:
        return "{" + ",".join(map(str, action.choices)) + "}"
    if isinstance(action.metavar, str):
        return action.metavar
    return action.dest.upper()


def _usage(name: str, told: Sequence[argparse.Action], goes_on: bool) -> str:
    words = [name]
    for action in told:
        if not action.option_strings:
            value = _value(action)
            words.append(
                {"?": f"[{value}]", "*": f"[{value} …]", "+": f"{value} …"}.get(
                    str(action.nargs), value
                )
            )
    if any(each.option_strings for each in told):
        words.append("[OPTION …]")
    return " ".join([*words, "WHAT …"] if goes_on else words)


def _row(action: argparse.Action) -> str:
    value = _value(action)
    names = [f"{each} {value}".strip() for each in action.option_strings] or [value]
    values = {name: getattr(action, name) for name in ("default", "dest", "metavar", "choices")}
    help_ = (action.help or "") % values
    if isinstance(action, argparse._AppendAction) and "once for each" not in help_:  # pyright: ignore[reportPrivateUsage]
        help_ = help_ if "repeatable" in help_ else f"{help_} (repeatable)"
    shown = ", ".join(f"`{each}`" for each in names)
    return f"| {shown} | {_escape(help_)} |"


def _escape(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


def _table(actions: Sequence[argparse.Action]) -> str:
    """Return a row for each, with what has no name first."""
    rows = map(_row, sorted(actions, key=lambda each: bool(each.option_strings)))
    return "\n".join(["| | |", "|---|---|", *rows])


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def _sections(parser: argparse.ArgumentParser, common: Sequence[argparse.Action]) -> Iterator[str]:
    for name, made, text in commands(parser):
        told = _told(made, common)
        goes_on = any(commands(made))
        yield f"### {name}\n{_sentence(text)}\n\n```\n{_usage(name, told, goes_on)}\n```\n"
        if told:
            yield f"{_table(told)}\n"


def page() -> str:
    """The whole page."""
    operators, devices = parser_of_operators(), parser_of_agent()
    common = [each for each in _actions(operators) if set(each.option_strings) & set(_COMMON)]
    codes = "\n".join(f"| `{code}` | {text} |" for code, text in EXITS.items())
    return "\n".join(
        [
            _INTRODUCTION,
            f"## Exit codes\nOf `harmony`:\n\n| | |\n|---|---|\n{codes}\n",
            f"{_OF_AGENT}\n",
            "## harmony\nEvery command takes these, before its name or after it:\n",
            f"{_table(common)}\n",
            "`harmony --version` prints the version.\n",
            *_sections(operators, common),
            "## harmony-agent\nOn the device, as root.\n",
            *_sections(devices, ()),
        ]
    )


if __name__ == "__main__":
    PAGE.write_text(page())
