"""The rules by which unit files are rendered are systemd's own: shown by systemd itself."""

from __future__ import annotations

import pytest

from harmony_core.credentials import CREDENTIAL_BLOCK_BYTES, CREDENTIALS_MAX_BYTES
from harmony_core.resources import SystemdUnit
from harmony_scores import SystemdServiceScore
from tests.box import Box

from .systemd_rules import command_of, parse, words_of

ARGUMENTS = (
    "",
    " ",
    "two words",
    "tab\there",
    ";",
    "#",
    "%n %% 100%",
    "$HOME ${HOME} $$ $",
    '"quoted"',
    "it's",
    "back\\slash \\n \\x41 \\",
    "-@:+!|",
    "grüß Gott",
)
ENVIRONMENT = {
    "PLAIN": "x",
    "QUOTED": '"; EVIL=1',
    "SPECIAL": "%n $HOME ${X} $$ \\ 'é'\t.",
    "EMPTY": "",
}
PRINT = (
    'printf "%s\\0" "$@" > /run/arguments && env -0 > /run/e && mv /run/e /run/environment'
    " && exec sleep 1000"
)


def test_arguments_and_variables_reach_a_program_as_they_were_written(pi: Box) -> None:
    score = SystemdServiceScore(
        name="rules.service",
        description="50% of $HOME; 'quoted' \\ \"text\"",
        exec_start=("/usr/bin/sh", "-c", PRINT, "sh", *ARGUMENTS),
        environment=ENVIRONMENT,
        working_directory="/srv",
    )
    content = _unit(score).content
    assert content is not None
    (command,) = parse(content)["Service"]["ExecStart"]
    assert command_of(command)[4:] == list(ARGUMENTS)
    pi.write("/run/systemd/system/rules.service", content)
    pi.run(["systemctl", "daemon-reload"])
    pi.run(["systemctl", "start", "rules.service"])
    pi.wait_for((pi.root / "run/environment").exists)
    assert pi.read("/run/arguments").decode() == "".join(f"{each}\0" for each in ARGUMENTS)
    environment = dict(
        each.split("=", 1) for each in pi.read("/run/environment").decode().split("\0") if each
    )
    assert environment.items() >= ENVIRONMENT.items()
    assert environment["PWD"] == "/srv"
    shown = pi.text("systemctl", "show", "-p", "Description", "--value", "rules.service")
    assert shown == score.description
    assert "rules.service" not in pi.text("journalctl", "-b", "-p", "warning", "-o", "cat")


BLOCK = CREDENTIAL_BLOCK_BYTES


@pytest.mark.parametrize(
    "sizes",
    [
        {"token": CREDENTIALS_MAX_BYTES - 5},
        {"x" * 255: 24 * BLOCK + 1, "token": 39 * BLOCK},
        {f"c{n}": 1 for n in range(64)},
        {"token": 0},
    ],
    ids=["one", "two", "many", "empty"],
)
def test_systemd_takes_as_much_of_credentials_as_is_allowed(pi: Box, sizes: dict[str, int]) -> None:
    assert start_with(pi, sizes)
    told = pi.text("find", "/run/credentials/rules.service", "-type", "f", "-printf", "%f %s\\n")
    assert dict(line.split() for line in told.splitlines()) == {
        name: str(size) for name, size in sizes.items()
    }


def test_systemd_takes_no_more_of_credentials_than_is_allowed(pi: Box) -> None:
    assert not start_with(pi, {"token": CREDENTIALS_MAX_BYTES - 5}, more=1)


def start_with(pi: Box, sizes: dict[str, int], *, more: int = 0) -> bool:
    """Return whether systemd starts a service with credentials of these sizes, each with so much *more*."""
    score = SystemdServiceScore(
        name="rules.service",
        exec_start=("/usr/bin/sleep", "1000"),
        credentials={name: "x" * size for name, size in sizes.items()},
    )
    unit = _unit(score)
    pi.run(["rm", "-rf", "/etc/harmony-credentials"])
    for name, path in unit.credentials.items():
        pi.write(path, b"x" * (sizes[name] + more), mode=0o600)
    pi.write("/run/systemd/system/rules.service", unit.content or "")
    pi.run(["systemctl", "daemon-reload"])
    return pi.run(["systemctl", "restart", "rules.service"], check=False).returncode == 0


def test_what_the_parser_of_these_tests_splits_systemd_splits_alike() -> None:
    assert words_of('a "b c" d\\"e \'f\'') == ["a", "b c", 'd"e', "f"]


def _unit(score: SystemdServiceScore) -> SystemdUnit:
    return score._unit()  # pyright: ignore[reportPrivateUsage] # what it sends, before it is sent
