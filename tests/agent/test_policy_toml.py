"""policy.toml: who may write it, what may stand in it, and which line a refusal names."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from harmony_agent import config as configuration
from harmony_agent.policy_toml import PolicyTable
from harmony_core.errors import ConfigError
from harmony_core.wire.envelope import generate_key
from tests.authority import AUTHORITY


def written(directory: Path, text: str, mode: int = 0o644) -> Path:
    path = directory / "policy.toml"
    path.write_text(text)
    path.chmod(mode)
    return path


def agent_toml(directory: Path, more: str = "") -> Path:
    path = directory / "agent.toml"
    path.write_text(
        f'agent_id = "pi-1"\nfleet = "home"\n[nats]\nservers = ["tls://nowhere:4222"]\n'
        f'seed = "SU{"A" * 56}"\nmailbox = "{"a" * 26}"\nca = """{AUTHORITY}"""\n'
        f'[report]\nkey = "{generate_key().to_text()}"\n'
        f'[trust]\noperator_keys = ["{generate_key().public.to_text()}"]\n{more}'
    )
    path.chmod(0o600)
    return path


def why_not(directory: Path, text: str, mode: int = 0o644) -> str:
    with pytest.raises(ConfigError) as caught:
        PolicyTable.read(written(directory, text, mode))
    return caught.value.message


def test_without_a_file_it_is_open_and_runs_no_jobs(tmp_path: Path) -> None:
    table = PolicyTable.read(tmp_path / "policy.toml")
    assert (table.preset, table.jobs) == ("open", "none")
    assert table.describe() == (
        f"open (there is no {tmp_path}/policy.toml): whoever signs for this device may be root on it; "
        "jobs: none"
    )


def test_the_preset_is_said_with_what_it_means(tmp_path: Path) -> None:
    table = PolicyTable.read(written(tmp_path, 'preset = "appliance"\njobs = "any"\n'))
    assert table.describe() == (
        f"appliance ({tmp_path}/policy.toml): nothing but what it lists; jobs: any"
    )


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666])
def test_what_others_may_write_is_refused(tmp_path: Path, mode: int) -> None:
    assert f"run: chmod go-w {tmp_path}" in why_not(tmp_path, 'preset = "open"\n', mode)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give a file away")
@pytest.mark.parametrize("leads_somewhere", [True, False])
def test_a_link_is_refused_also_one_that_leads_nowhere(
    tmp_path: Path, *, leads_somewhere: bool
) -> None:
    if leads_somewhere:
        written(tmp_path, 'preset = "appliance"\n').rename(tmp_path / "elsewhere.toml")
    link = tmp_path / "policy.toml"
    link.symlink_to(tmp_path / "elsewhere.toml")
    with pytest.raises(ConfigError, match="put the file itself there"):
        PolicyTable.read(link)


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_what_is_no_file_is_refused_and_not_waited_for(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    make(tmp_path / "policy.toml")
    with pytest.raises(ConfigError, match="put the file itself there"):
        PolicyTable.read(tmp_path / "policy.toml")


def test_what_belongs_to_another_user_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, 'preset = "open"\n')
    os.chown(path, 1000, 1000)
    with pytest.raises(ConfigError, match="run: chown root:root"):
        PolicyTable.read(path)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "preset: is missing; add it"),
        ('preset = "closed"', "preset: "),
        ('preset = "open"\npath = []', "path: unknown field; allowed: preset, jobs, paths"),
        ('preset = "open"\njobs = "everything"', "jobs: "),
        (
            'preset = "open"\nkinds = []',
            'kinds changes nothing in the preset "open"; remove it, or',
        ),
        ('preset = "open"\ndigest = false', 'digest changes nothing in the preset "open"'),
        ('preset = "open"\npaths = ["srv"]', "paths.0: "),
        ('preset = "open"\npaths = ["/srv/*/.."]', "paths.0: "),
        ('preset = "appliance"\nregistries = ["https://ghcr.io"]', "registries.0: "),
        ('preset = "appliance"\ndownloads = ["https://example.org"]', "downloads.0: "),
        ('preset = "appliance"\ndownloads = ["example.org/"]', "downloads.0: "),
        ('preset = "open"\ndownloads = ["example.org"]', "downloads changes nothing in the preset"),
        ('preset = "open"\nprivileged = true', 'privileged changes nothing in the preset "open"'),
        ('preset = "appliance"\nhost_namespaces = ["user"]', "host_namespaces.0: "),
        ('preset = "open', "is not TOML"),
        ("\udcff", "is not TOML"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_the_field(
    tmp_path: Path, text: str, why: str
) -> None:
    path = tmp_path / "policy.toml"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ConfigError) as caught:
        PolicyTable.read(path)
    assert caught.value.message.startswith(str(path))
    assert why in caught.value.message


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('preset = "appliance"\npaths = ["/srv"]\n', 2),
        ('preset = "appliance"\n\n# paths = []\n  "paths" = ["/srv"]\n', 4),
        ('preset = "appliance"\nunits = [\n  "x",\n]\npaths = [\n  "/srv",\n]\n', 5),
        ('preset = "appliance"\n"p\\u0061ths" = ["/srv"]\n', 2),
        ('preset = "appliance"\n# \u2028\npaths=["/srv"]\n', 3),
        ('preset = "appliance"\nkinds = ["""\\\npaths = \\\n"""]\npaths = ["/srv"]\n', 5),
    ],
)
def test_the_line_is_that_on_which_the_field_is_set(tmp_path: Path, text: str, line: int) -> None:
    table = PolicyTable.read(written(tmp_path, text))
    assert f'line {line}: paths = ["/srv"]; to allow it, add "/x" to paths there' in (
        table.refused_by("paths", "/x")
    )


@pytest.mark.parametrize(
    "key", [r'"\u0070reset"', r'"pre\u0073et"', "'preset'", r'"\U00000070reset"']
)
def test_a_preset_is_named_by_its_line_however_its_key_is_written(tmp_path: Path, key: str) -> None:
    table = PolicyTable.read(written(tmp_path, f'# first\n{key} = "appliance"\n'))
    assert 'line 2: preset = "appliance", and no line has paths' in table.refused_by("paths", "/x")


def test_what_lists_very_much_is_shown_in_part(tmp_path: Path) -> None:
    listed = ", ".join(f'"/srv/{number}"' for number in range(100))
    table = PolicyTable.read(written(tmp_path, f'preset = "appliance"\npaths = [{listed}]\n'))
    assert len(table.refused_by("paths", "/x")) < 500


def test_a_device_reads_it_beside_its_agent_toml(tmp_path: Path) -> None:
    path = agent_toml(tmp_path)
    assert configuration.load(path).policy.preset == "open"
    written(tmp_path, 'preset = "appliance"\n')
    assert configuration.load(path).policy.is_appliance
    written(tmp_path, "preset = 1\n")
    with pytest.raises(ConfigError, match=r"policy\.toml: preset: "):
        configuration.load(path)


def test_a_policy_in_agent_toml_says_where_it_went(tmp_path: Path) -> None:
    path = agent_toml(tmp_path, '\n[policy]\njobs = "any"\n')
    with pytest.raises(ConfigError) as caught:
        configuration.load(path)
    assert f"[policy] is a file of its own now; move it to {tmp_path}/policy.toml" in (
        caught.value.message
    )
