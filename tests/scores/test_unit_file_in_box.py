"""The rules by which unit files are rendered are systemd's own: shown by systemd itself."""

from __future__ import annotations

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


def test_what_the_parser_of_these_tests_splits_systemd_splits_alike() -> None:
    assert words_of('a "b c" d\\"e \'f\'') == ["a", "b c", 'd"e', "f"]


def _unit(score: SystemdServiceScore) -> SystemdUnit:
    return score._unit()  # pyright: ignore[reportPrivateUsage] # what it sends, before it is sent
