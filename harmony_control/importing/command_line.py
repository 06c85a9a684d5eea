"""``podman run …`` and ``docker run …``, as a Score of a container and of what it names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

from harmony_core.close_names import did_you_mean
from harmony_core.errors import NotImportable
from harmony_core.images import parse_image
from harmony_core.plugins import Registry

from . import readers
from .draft import Draft, Imported, Importing
from .flags import ALIASES, DONE, MEANINGLESS, REFUSED, SHORT, SWITCHES
from .words import split_for_shell

__all__ = ["import_command", "read_flags"]


def import_command(words: Sequence[str], registry: Registry) -> Imported:
    """Return the Scores of one command: its words, or all of it in one. `NotImportable` tells all that is
    wrong."""
    if len(words) == 1:
        try:
            words = split_for_shell(words[0])
        except ValueError as error:
            raise NotImportable(f"the command cannot be read: {error}") from error
    importing = Importing()
    draft = importing.draft("ContainerScore")
    program, rest = _begin(importing, list(words))
    if program == "docker":
        draft.where = "docker"
        draft.keep("read-only-tmpfs", "false")
    arguments = read_flags(draft, rest)
    if not arguments:
        if not importing.faults:
            importing.refuse("", "no image is named; write it after the flags")
        raise NotImportable("\n".join(importing.faults))
    draft.read("IMAGE", readers.image, arguments[0])
    if arguments[1:]:
        draft.where = "COMMAND"
        draft.put("command", arguments[1:])
    if "name" not in draft.spec:
        draft.where = "--name"
        draft.put("name", _name_of(str(draft.spec["image"])))
        draft.note(f"none is given, so it is called {draft.spec['name']}, as its image is")
    readers.finish_container(draft)
    return importing.finish(registry)


def _begin(importing: Importing, words: list[str]) -> tuple[str, list[str]]:
    """Return which program it is, and what comes after its ``run``."""
    if words[:1] == ["sudo"]:
        importing.note("sudo", "the agent is root")
        words = words[1:]
    program = PurePosixPath(words[0]).name if words else ""
    rest = words[2:] if words[1:2] == ["container"] else words[1:]
    if program not in {"podman", "docker"} or rest[:1] != ["run"]:
        raise NotImportable(
            "it does not begin with `podman run` or `docker run`; give the whole command, and nothing "
            "before or between these words"
        )
    return program, rest[1:]


def _name_of(image: str) -> str:
    try:
        return parse_image(image).repository.rpartition("/")[2]
    except ValueError:
        return "imported"  # that it is no image is told of the image


def read_flags(draft: Draft, words: Sequence[str], prefix: str = "") -> list[str]:
    """Have *draft* read all flags at the begin of *words*, and return what comes after them. *prefix* is
    where they stand."""
    rest = list(words)
    while rest and rest[0].startswith("-") and rest[0] != "-":
        word = rest.pop(0)
        if word == "--":
            break
        for typed, flag, value in _flags_in(draft, word, rest, prefix):
            _read_flag(draft, f"{prefix}{typed}", flag, value)
    return rest


def _flags_in(
    draft: Draft, word: str, rest: list[str], prefix: str
) -> Iterator[tuple[str, str, str]]:
    """Yield what was typed, which flag that is, and its value, taken out of *rest* where it is the next
    word."""
    if word.startswith("--"):
        typed, equals, value = word.partition("=")
        flag = ALIASES.get(typed[2:], typed[2:])
        if not equals and flag in SWITCHES:
            value = "true"
        elif not equals and (_is_known(flag) or (rest and not rest[0].startswith("-"))):
            value = _take(
                draft, typed, rest, prefix
            )  # of one that is unknown, too, to go on after it
        yield typed, flag, value
        return
    letters = word[1:]
    while letters:
        typed, letters = f"-{letters[0]}", letters[1:]
        flag = SHORT.get(typed[1], typed)
        if flag in SWITCHES and not letters.startswith("="):
            yield typed, flag, "true"
            continue
        if letters or not _is_known(flag):
            value = letters.removeprefix("=")
        else:
            value = _take(draft, typed, rest, prefix)
        yield typed, flag, value
        return


def _is_known(flag: str) -> bool:
    return flag in DONE or flag in REFUSED or flag in MEANINGLESS


def _take(draft: Draft, typed: str, rest: list[str], prefix: str) -> str:
    if not rest:
        draft.importing.refuse(f"{prefix}{typed}", "its value is missing; add it")
        return ""
    return rest.pop(0)


def _read_flag(draft: Draft, where: str, flag: str, value: str) -> None:
    if flag in DONE:
        draft.read(where, DONE[flag], value)
    elif flag in REFUSED:
        draft.importing.refuse(where, REFUSED[flag])
    elif flag in MEANINGLESS:
        draft.importing.note(where, MEANINGLESS[flag])
    else:
        known = {*DONE, *REFUSED, *MEANINGLESS, *ALIASES}
        hint = did_you_mean(flag, known) or "; correct its name"
        draft.importing.refuse(where, f"podman run has no such flag{hint}")
