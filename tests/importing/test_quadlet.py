"""``harmony import quadlet``: every key there is, in one of three lists; files that name each other."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harmony_control.cli import main
from harmony_control.importing.draft import Imported
from harmony_control.importing.quadlet import import_quadlets
from harmony_control.importing.quadlet_keys import KEYS, Done, Meaningless, Refused
from harmony_control.importing.words import split_for_systemd
from harmony_control.importing.written import plain, write_python, write_yaml
from harmony_control.push.entries import serialize
from harmony_control.score_files.read import read_score_files
from harmony_core.errors import NotImportable
from harmony_core.plugins import Registry
from harmony_core.wire.ordering import graph_faults
from harmony_scores import harmony_scores

REGISTRY = Registry(harmony_scores())
ALL_KEYS = [
    (section, key)
    for section, key, _ in (
        line.split("\t")
        for line in (Path(__file__).parent / "quadlet_keys.txt").read_text().splitlines()
        if not line.startswith("#")
    )
]
IMAGE = "Image=docker.io/library/nginx:1.29"

WEB = """\
# The web, as podman's own pages might have it.
[Unit]
Description=The web
Wants=network-online.target
After=network-online.target data-volume.service back-network.service
Requires=db.service

[Container]
Image=docker.io/library/nginx:1.29
Volume=data.volume:/usr/share/nginx/html:Z
Mount=type=volume,source=data.volume,target=/again,ro
Network=back.network:alias=www
PublishPort=9:9
PublishPort=
PublishPort=8080:80
Environment=A=1 "B=two words" C=50%%
; Remarks may stand between
Environment='D=$$5'
Exec=nothing
Exec=nginx -g \\
# in the middle of a value
  'daemon off;'
PodmanArgs=--memory 64m --cpus=0.5
HealthCmd=curl -f http://localhost/ || exit 1
HealthInterval=1m
NoNewPrivileges=yes
ReadOnly=no
User=101
Group=101
VolatileTmp=true
Notify=healthy

[Service]
Restart=always
Type=notify

[Install]
WantedBy=multi-user.target default.target
"""
DB = """\
[Container]
ContainerName=db
Image="docker.io/library/redis:8"
Network=back.network
Network=host.network
Entrypoint=
"""
SPEC = {
    "name": "systemd-web",
    "image": "docker.io/library/nginx:1.29",
    "volumes": [
        {"volume": "systemd-data", "target": "/usr/share/nginx/html"},
        {"volume": "systemd-data", "target": "/again", "read_only": True},
    ],
    "networks": [{"network": "systemd-back", "aliases": ["www"]}],
    "ports": [{"host": 8080, "container": 80}],
    "environment": {"A": "1", "B": "two words", "C": "50%", "D": "$5"},
    "command": ["nginx", "-g", "daemon off;"],
    "memory_bytes": 64 * 2**20,
    "cpus": 0.5,
    "healthcheck": {"shell": "curl -f http://localhost/ || exit 1", "interval_s": 60.0},
    "no_new_privileges": True,
    "user": "101:101",
    "tmpfs": [{"target": "/tmp", "size_bytes": 512 * 2**20, "mode": "1777"}],
}


def write(folder: Path, **files: str) -> list[Path]:
    """Write files whose names have _ for a dot."""
    paths = [folder / name.replace("_", ".") for name in files]
    for path, content in zip(paths, files.values(), strict=True):
        path.write_text(content)
    return paths


def read(folder: Path, **files: str) -> Imported:
    return import_quadlets(write(folder, **files), REGISTRY)


def refusal(folder: Path, **files: str) -> list[str]:
    with pytest.raises(NotImportable) as refused:
        read(folder, **files)
    return refused.value.message.replace(f"{folder}/", "").splitlines()


def container(*lines: str) -> str:
    return "\n".join(["[Container]", IMAGE, *lines, ""])


def whole(folder: Path) -> Imported:
    return read(
        folder,
        web_container=WEB,
        db_container=DB,
        data_volume="[Volume]\nLabel=a=b c=d\nDriver=local\n",
        back_network="[Network]\nSubnet=10.90.0.0/24\nSubnet=fd00::/64\nInternal=yes\nIPv6=true\n",
        host_network="[Network]\nNetworkName=front\n",
    )


def test_every_key_is_in_exactly_one_list() -> None:
    own = {(section, key) for section in KEYS for key in KEYS[section]}
    systemds = {each for each in own if each[0] in {"Unit", "Service", "Install"}}
    assert own - systemds == set(ALL_KEYS)
    for section, key in own:
        assert isinstance(KEYS[section][key], Done | Refused | Meaningless)


def test_files_become_scores_that_wait_for_each_other(tmp_path: Path) -> None:
    imported = whole(tmp_path)
    found = {str(each["id"]): each for each in plain(imported.entries)}
    assert found["systemd-web"]["spec"] == SPEC
    assert found["systemd-web"]["after"] == ["systemd-data", "systemd-back", "db"]
    assert found["db"]["after"] == ["systemd-back", "front"]
    assert found["db"]["spec"] == {
        "name": "db",
        "image": "docker.io/library/redis:8",
        "entrypoint": [],
        "networks": [{"network": "systemd-back"}, {"network": "front"}],
    }
    assert found["systemd-data"]["spec"] == {
        "name": "systemd-data",
        "labels": {"a": "b", "c": "d"},
    }
    assert found["systemd-back"]["spec"] == {
        "name": "systemd-back",
        "subnets": ["10.90.0.0/24", "fd00::/64"],
        "internal": True,
        "ipv6": True,
    }
    serialized = [serialize(score_id, each) for score_id, each in imported.entries.items()]
    assert graph_faults(serialized) == {}


@pytest.mark.parametrize(("name", "write_scores"), [("a.yaml", write_yaml), ("a.py", write_python)])
def test_what_is_printed_reads_back_to_the_same_scores(
    tmp_path: Path, name: str, write_scores: Any
) -> None:
    entries = whole(tmp_path).entries
    (tmp_path / name).write_text(write_scores(entries))
    again = read_score_files([str(tmp_path / name)], REGISTRY)
    assert {i: serialize(i, each) for i, each in again.items()} == {
        i: serialize(i, each) for i, each in entries.items()
    }


def test_what_has_no_meaning_is_said_once_with_its_lines(tmp_path: Path) -> None:
    notes = [each.replace(f"{tmp_path}/", "") for each in whole(tmp_path).notes]
    begins = "the agent begins once the device has started, and keeps it running"
    assert notes == [
        "web.container:3: Description: a container has no description",
        f"web.container:4: Wants, web.container:5: After, web.container:38: WantedBy: {begins}",
        "web.container:10: Volume: Raspberry Pi OS and Debian have no SELinux",
        "web.container:31: Notify: the Score is RUNNING until its check succeeds",
    ]


@pytest.mark.parametrize(("section", "key"), ALL_KEYS)
def test_a_key_is_done_or_named_with_its_line(tmp_path: Path, section: str, key: str) -> None:
    """Whatever is wrong with the value x, the line says so; what is silent has changed the Score."""
    lines = {"Container": f"{IMAGE}\n", "Volume": "", "Network": "", "Quadlet": ""}[section]
    kind = section.lower() if section != "Quadlet" else "volume"
    at = 2 + lines.count("\n")
    files = {f"a_{kind}": f"[{section}]\n{lines}{key}=x\n"}
    try:
        imported = read(tmp_path, **files)
    except NotImportable as error:
        told = error.message
        assert f"a.{kind}:{at}: {key}: " in told
        assert not isinstance(KEYS[section][key], Meaningless)
    else:
        assert not isinstance(KEYS[section][key], Refused)
        (spec,) = (each["spec"] for each in plain(imported.entries)[-1:])
        without = {"name": "systemd-a", **({"image": IMAGE[6:]} if lines else {})}
        noted = any(f"a.{kind}:{at}: {key}: " in each for each in imported.notes)
        default = KEYS[section][key]
        is_switch = isinstance(default, Done) and default.how == "switch"  # x is false
        assert noted or spec != without or is_switch


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (
            ["Memmory=1g"],
            "a.container:3: Memmory: [Container] has no such key; did you mean 'Memory'?",
        ),
        (["Exec=echo %h"], "a.container:3: Exec: %h is a specifier, which systemd replaces"),
        (["Exec=echo $HOME"], "a.container:3: Exec: $HOME is a variable, which systemd replaces"),
        (["Exec=echo a${HOME}"], "a.container:3: Exec: ${HOME} is a variable"),
        (["Exec='a"], "a.container:3: Exec: a ' is not closed"),
        (["Exec=a\\q"], "a.container:3: Exec: \\q is an escape that is not read"),
        (
            ["Volume=b.volume:/b"],
            "a.container:3: Volume: b.volume is not given; give that file, too",
        ),
        (["Network=b.container"], "a.container:3: Network: a container that is made anew"),
        (
            ["Mount=type=image,source=b.image,target=/b"],
            "a.container:3: Mount: b.image: a container pulls",
        ),
        (
            ["AddCapability=NET_ADM"],
            "a.container:3: AddCapability: add_capabilities.0: is no capability",
        ),
        (
            ["Environment=A=1", "Environment=LD_X=1"],
            "a.container:4: Environment: environment: LD_X",
        ),
        (["PodmanArgs=--gpus all"], "a.container:3: PodmanArgs: --gpus: a Pi has none of these"),
        (["PodmanArgs=--memory 1m"], "a.container:3: PodmanArgs: --memory: memory_bytes: "),
        (["PodmanArgs=x"], "a.container:3: PodmanArgs: 'x' is no flag of podman run"),
        (["Group=1"], "a.container:3: Group: a group without its user"),
        (
            ["Notify=yes"],
            "a.container:3: Notify: container: a container tells systemd nothing here",
        ),
        (["[Unit]", "After=db.service"], "a.container:4: After: db.service is not imported"),
        (
            ["[Unit]", "ConditionPathExists=/a"],
            "a.container:4: ConditionPathExists: a container is no unit",
        ),
        (["[Service]", "ExecStartPre=/a"], "a.container:4: ExecStartPre: a container is no unit"),
        (
            ["[Service]", "Restart=on-abort"],
            "a.container:4: Restart: on-abort: podman knows always",
        ),
        (
            ["[Service]", "Type=oneshot"],
            "a.container:4: Type: oneshot: a container is kept running",
        ),
        (["[Volume]", "Label=a=b"], "a.container:4: Label: [Volume] is of another file"),
        (
            ["[Contianer]", "User=1"],
            "a.container:4: User: [Contianer] is no section of Quadlet; did you",
        ),
        (["no key"], "a.container:3: 'no key' is neither a section nor a key"),
    ],
)
def test_what_is_wrong_is_told_with_file_line_and_key(
    tmp_path: Path, lines: list[str], told: str
) -> None:
    (line,) = refusal(tmp_path, a_container=container(*lines))
    assert line.startswith(told)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("a.pod", "there are no pods"),
        ("a.kube", "it is for `podman kube play`"),
        ("a.image", "a container pulls its image itself"),
        ("a.build", "nothing is built on a device"),
        ("a.conf", "it changes another file"),
        ("a@.container", "is a template"),
        ("a.service", "is no file of Quadlet"),
        ("b.container", "cannot be read: No such file"),
        ("c.container", "is changed by what is in c.container.d"),
    ],
)
def test_other_files_are_refused_by_name(tmp_path: Path, name: str, told: str) -> None:
    (tmp_path / "c.container.d").mkdir()
    with pytest.raises(NotImportable) as refused:
        import_quadlets([tmp_path / name], REGISTRY)
    assert refused.value.message.startswith(f"{tmp_path / name}")
    assert told in refused.value.message


def test_all_that_is_wrong_with_all_files_is_told_at_once(tmp_path: Path) -> None:
    told = refusal(
        tmp_path,
        a_container="[Container]\nPod=x.pod\nMemory=1k\n",
        b_volume="[Volume]\nDevice=/dev/sda1\nName=x\n",
        c_kube="",
    )
    assert [each.partition(": ")[0] for each in told] == [
        *("c.kube", "a.container:2", "a.container", "b.volume:2", "b.volume:3", "a.container:3"),
    ]


def test_two_whose_ids_would_be_one_are_both_there(tmp_path: Path) -> None:
    imported = read(
        tmp_path,
        one_container=container("ContainerName=a.b"),
        two_container=container("ContainerName=a_b"),
        three_container=container("ContainerName=a-b"),
    )
    assert [each["id"] for each in plain(imported.entries)] == ["a-b", "a-b-2", "a-b-3"]


def test_a_file_of_variables_lies_beside_its_file(tmp_path: Path) -> None:
    (tmp_path / "web.env").write_text("A=1\n")
    imported = read(tmp_path, a_container=container("EnvironmentFile=web.env"))
    (entry,) = plain(imported.entries)
    assert isinstance(entry["spec"], dict)
    assert entry["spec"]["environment"] == {"A": "1"}


def test_the_command_prints_what_can_be_pushed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = write(tmp_path, a_container=container("PublishPort=80:80"))
    assert main(["import", "quadlet", "--python", *map(str, paths)]) == 0
    assert "ports=(PublishedPort(host=80, container=80),)" in capsys.readouterr().out
    assert main(["import", "quadlet", str(tmp_path / "a.pod")]) == 2
    assert "a.pod: there are no pods" in capsys.readouterr().err


def test_words_are_split_as_systemd_splits_them() -> None:
    assert split_for_systemd("a 'b c'  d\"e f\"g \\\"h\\s\\\\ ''") == [
        *("a", "b c", "de fg", '"h \\', ""),
    ]


@settings(max_examples=300)
@given(st.integers(0, 2**32), st.text(max_size=6))
def test_no_file_raises_anything_else(
    tmp_path_factory: pytest.TempPathFactory, seed: int, text: str
) -> None:
    """Lines are left out, changed, doubled, and moved to where they do not belong."""
    drawn = random.Random(seed)
    lines: list[str] = [*(WEB + DB).splitlines()]
    for _ in range(drawn.randint(1, 5)):
        at = drawn.randrange(len(lines))
        where = drawn.randrange(len(lines[at]) + 1)
        section, key = drawn.choice(ALL_KEYS)
        lines[at : at + 1] = drawn.choice(
            [
                [],
                [lines[at], lines[drawn.randrange(len(lines))]],
                [lines[at][:where] + text + lines[at][where:]],
                [f"{key}={text}"],
                [f"[{section}]"],
            ]
        )
    folder = tmp_path_factory.getbasetemp()
    (folder / "mutated.container").write_text("\n".join(lines))
    try:
        imported = import_quadlets([folder / "mutated.container"], REGISTRY)
    except NotImportable as error:
        told = error.message
        assert str(folder / "mutated.container") in told
        return
    assert write_yaml(imported.entries)
