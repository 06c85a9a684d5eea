"""``harmony import run``: every flag there is, in one of three lists, and what is made of what is done."""

from __future__ import annotations

import io
import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harmony_control.cli import main
from harmony_control.importing.command_line import import_command
from harmony_control.importing.draft import Imported
from harmony_control.importing.flags import ALIASES, DONE, MEANINGLESS, REFUSED, SHORT, SWITCHES
from harmony_control.importing.words import duration_s, size_bytes, split_for_shell
from harmony_control.importing.written import plain, write_python, write_yaml
from harmony_control.push.entries import serialize
from harmony_control.score_files.read import read_score_files
from harmony_core.errors import NotImportable
from harmony_core.plugins import Registry
from harmony_scores import harmony_scores

HERE = Path(__file__).parent
REGISTRY = Registry(harmony_scores())
FLAGS = [
    line.split("\t")
    for line in (HERE / "podman_run_flags.txt").read_text().splitlines()
    if not line.startswith("#")
]
GOLDEN = HERE.parent / "typing" / "imported_scores.py"

EXAMPLES: dict[str, tuple[list[str], dict[str, Any]]] = {
    "add-host": (["db;cache:10.0.0.1"], {"extra_hosts": {"db": "10.0.0.1", "cache": "10.0.0.1"}}),
    "cap-add": (["CAP_NET_ADMIN,sys_time"], {"add_capabilities": ["NET_ADMIN", "SYS_TIME"]}),
    "cap-drop": (["all"], {"drop_capabilities": ["ALL"]}),
    "cgroupns": (["private"], {}),
    "cgroups": (["split"], {}),
    "cpu-shares": (["512"], {"cpu_shares": 512}),
    "cpus": (["1.5"], {"cpus": 1.5}),
    "cpuset-cpus": (["0-2"], {"cpuset": "0-2"}),
    "device": (
        ["/dev/ttyUSB0:/dev/gps:r", "/dev/snd"],
        {
            "devices": [
                {"source": "/dev/ttyUSB0", "target": "/dev/gps", "access": "r"},
                {"source": "/dev/snd"},
            ]
        },
    ),
    "device-cgroup-rule": (["c 188:* rwm"], {"device_rules": ["c 188:* rwm"]}),
    "dns": (["192.0.2.1"], {"dns": ["192.0.2.1"]}),
    "dns-option": (["ndots:2"], {"dns_options": ["ndots:2"]}),
    "dns-search": (["example.org"], {"dns_search": ["example.org"]}),
    "entrypoint": (['["/bin/sh", "-c"]'], {"entrypoint": ["/bin/sh", "-c"]}),
    "env": (["A=b=c", "EMPTY="], {"environment": {"A": "b=c", "EMPTY": ""}}),
    "env-file": ([str(HERE / "example.env")], {"environment": {"FIRST": "1", "SECOND": '"two" '}}),
    "group-add": (["video"], {"groups": ["video"]}),
    "health-cmd": (["curl -f localhost"], {"healthcheck": {"shell": "curl -f localhost"}}),
    "health-interval": (["1m30s"], {"healthcheck": {"shell": "true", "interval_s": 90.0}}),
    "health-on-failure": (["none"], {}),
    "health-retries": (["5"], {"healthcheck": {"shell": "true", "retries": 5}}),
    "health-start-period": (["2m"], {"healthcheck": {"shell": "true", "start_period_s": 120.0}}),
    "health-timeout": (["2.5s"], {"healthcheck": {"shell": "true", "timeout_s": 2.5}}),
    "hostname": (["web"], {"hostname": "web"}),
    "image-volume": (["bind"], {}),
    "init": (["true"], {"init": True}),
    "ip": (["10.90.0.5"], {"networks": [{"network": "back", "address": "10.90.0.5"}]}),
    "ip6": (["fd00::5"], {"networks": [{"network": "back", "address": "fd00::5"}]}),
    "ipc": (["host"], {"ipc": "host"}),
    "label": (["a=b", "c"], {"labels": {"a": "b", "c": ""}}),
    "log-driver": (["journald"], {"log_driver": "journald"}),
    "log-opt": (["tag=shop/web"], {"log_driver": "journald", "log_tag": "shop/web"}),
    "memory": (["64m"], {"memory_bytes": 64 * 2**20}),
    "memory-reservation": (["32m"], {"memory_reservation_bytes": 32 * 2**20}),
    "memory-swap": (["-1"], {"memory_bytes": 64 * 2**20, "memory_swap_bytes": -1}),
    "mount": (
        [
            "type=bind,src=/srv/a,dst=/a,ro=true,bind-propagation=rslave",
            "type=volume,source=data,target=/data,readonly",
            "type=tmpfs,tmpfs-size=1m,tmpfs-mode=0700,dst=/t",
        ],
        {
            "mounts": [{"source": "/srv/a", "target": "/a", "propagation": "rslave"}],
            "volumes": [{"volume": "data", "target": "/data", "read_only": True}],
            "tmpfs": [{"target": "/t", "size_bytes": 2**20, "mode": "0700"}],
        },
    ),
    "name": (["web"], {"name": "web"}),
    "network": (
        ["back:alias=www,alias=w3,ip=10.90.0.5", "front"],
        {
            "networks": [
                {"network": "back", "address": "10.90.0.5", "aliases": ["www", "w3"]},
                {"network": "front"},
            ]
        },
    ),
    "network-alias": (["www"], {"networks": [{"network": "back", "aliases": ["www"]}]}),
    "no-healthcheck": (["true"], {}),
    "pid": (["host"], {"pid": "host"}),
    "pids-limit": (["100"], {"pids": 100}),
    "privileged": (["true"], {"privileged": True}),
    "publish": (
        ["127.0.0.1:8080-8081:80-81", "53:53/udp", "[::]:9:9", "0.0.0.0:7:7"],
        {
            "ports": [
                {"host": 8080, "container": 80, "address": "127.0.0.1"},
                {"host": 8081, "container": 81, "address": "127.0.0.1"},
                {"host": 53, "container": 53, "protocol": "udp"},
                {"host": 9, "container": 9, "address": "::"},
                {"host": 7, "container": 7},
            ]
        },
    ),
    "read-only": (
        ["true"],
        {
            "read_only": True,
            "tmpfs": [{"target": "/run"}, {"target": "/tmp"}, {"target": "/var/tmp"}],
        },
    ),
    "read-only-tmpfs": (["false"], {"read_only": True}),
    "restart": (["on-failure"], {"restart": "on-failure"}),
    "sdnotify": (["conmon"], {}),
    "secret": (
        [
            "db",
            "key,type=mount,target=/etc/key,uid=7,gid=8,mode=0400",
            "pw,target=p",
            "tok,type=env,target=T",
        ],
        {
            "environment": {"T": "${secret.tok}"},
            "secrets": [
                {"content": "${secret.db}", "target": "/run/secrets/db"},
                {
                    "content": "${secret.key}",
                    "target": "/etc/key",
                    "uid": 7,
                    "gid": 8,
                    "mode": "0400",
                },
                {"content": "${secret.pw}", "target": "/run/secrets/p"},
            ],
        },
    ),
    "security-opt": (["no-new-privileges"], {"no_new_privileges": True}),
    "shm-size": (["8m"], {"shm_bytes": 8 * 2**20}),
    "stop-signal": (["SIGINT"], {"stop_signal": "SIGINT"}),
    "stop-timeout": (["30"], {"stop_timeout_s": 30}),
    "sysctl": (["net.core.somaxconn=1024"], {"sysctls": {"net.core.somaxconn": "1024"}}),
    "systemd": (["true"], {}),
    "tmpfs": (
        ["/cache:rw,size=64m,mode=1777"],
        {"tmpfs": [{"target": "/cache", "size_bytes": 64 * 2**20, "mode": "1777"}]},
    ),
    "tz": (["Europe/Berlin"], {"timezone": "Europe/Berlin"}),
    "ulimit": (["nofile=1024:2048"], {"ulimits": {"nofile": {"soft": 1024, "hard": 2048}}}),
    "user": (["1000:1000"], {"user": "1000:1000"}),
    "userns": (["host"], {}),
    "uts": (["private"], {}),
    "volume": (
        ["data:/var/data", "/srv/www/:/www:ro,z,rslave"],
        {
            "volumes": [{"volume": "data", "target": "/var/data"}],
            "mounts": [{"source": "/srv/www", "target": "/www", "propagation": "rslave"}],
        },
    ),
    "workdir": (["/srv"], {"working_directory": "/srv"}),
}
"""Of each flag that is done: values, and what they make of a container."""

NEEDS: dict[str, list[str]] = {
    **{flag: ["--network", "back"] for flag in ("ip", "ip6", "network-alias")},
    **{
        f"health-{each}": ["--health-cmd", "true"]
        for each in ("interval", "retries", "start-period", "timeout")
    },
    "log-opt": ["--log-driver=journald"],
    "memory-swap": ["--memory", "64m"],
    "read-only-tmpfs": ["--read-only"],
}
"""Flags that mean something only with others."""


def words_of(flag: str) -> list[str]:
    values, _ = EXAMPLES[flag]
    return [*NEEDS.get(flag, []), *(f"--{flag}={value}" for value in values)]


def read(*words: str) -> Imported:
    return import_command(["podman", "run", *words], REGISTRY)


def container_of(imported: Imported) -> dict[str, Any]:
    (found,) = (
        each["spec"] for each in plain(imported.entries) if each["kind"] == "ContainerScore"
    )
    return cast("dict[str, Any]", found)


def refusal(*words: str) -> list[str]:
    with pytest.raises(NotImportable) as refused:
        import_command(words, REGISTRY)
    return refused.value.message.splitlines()


def test_every_flag_is_in_exactly_one_list() -> None:
    known = {name for name, *_ in FLAGS}
    lists = [DONE.keys(), REFUSED.keys(), MEANINGLESS.keys(), ALIASES.keys()]
    for name in known:
        assert sum(name in each for each in lists) == 1, name
    assert set().union(*lists) == known


def test_flags_take_values_and_have_short_forms_as_podman_says() -> None:
    assert {name for name, _, takes, _ in FLAGS if takes == "switch"} == SWITCHES
    assert {short: name for name, short, *_ in FLAGS if short != "-"} == SHORT


def test_every_flag_that_is_done_has_an_example() -> None:
    assert EXAMPLES.keys() == DONE.keys()


@pytest.mark.parametrize("flag", DONE)
def test_a_flag_that_is_done_becomes_what_it_means(flag: str) -> None:
    spec = container_of(read("--name=web", *words_of(flag), "docker.io/library/nginx:1.29"))
    assert spec == {"name": "web", "image": "docker.io/library/nginx:1.29", **EXAMPLES[flag][1]}


@pytest.mark.parametrize("flag", REFUSED)
def test_a_flag_that_is_refused_is_named_with_what_to_do(flag: str) -> None:
    assert refusal("podman", "run", f"--{flag}=x", "nginx") == [f"--{flag}: {REFUSED[flag]}"]
    assert len(REFUSED[flag]) > 20


@pytest.mark.parametrize("flag", MEANINGLESS)
def test_a_flag_without_meaning_is_said_once(flag: str) -> None:
    imported = read("--name=web", f"--{flag}=x", f"--{flag}=y", "docker.io/library/nginx:1")
    assert imported.notes == [f"--{flag}: {MEANINGLESS[flag]}"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--nmae", "x"], "--nmae: podman run has no such flag; did you mean 'name'?"),
        (["-Z"], "-Z: podman run has no such flag"),
        (["--cap-add=NET_ADM"], "--cap-add: add_capabilities.0: is no capability of Linux"),
        (["--memory=1m"], "--memory: memory_bytes: "),
        (["-p", "80"], "-p: 80 leaves the port of the device to podman; write HOST:CONTAINER"),
        (["-p", "80-82:80-81"], "-p: 80-82:80-81: the ranges differ in length"),
        (["-p", "99999:80"], "-p: 99999 is no port"),
        (["-p", "80:80", "-p", "80:81"], "-p: ports: one host port is published twice"),
        (["-v", "/data"], "-v: /data makes a volume without a name"),
        (["-v", "./a:/a"], "-v: ./a is relative to where it was run"),
        (["-v", "/run/docker.sock:/a"], "-v: there is no Docker on the device; podman's socket is"),
        (["-v", "/var/run/dbus:/a"], "-v: /var/run is a link on the device; write /run/dbus"),
        (["-v", "a:/a:nocopy"], "-v: a mount has no option nocopy"),
        (["-v", "/a:/a:U"], "-v: U gives what is there to another user"),
        (["-v", "/a:/b", "--tmpfs", "/b"], "--tmpfs: tmpfs: /b is the target of something else"),
        (["--mount=type=image,src=a,dst=/a"], "--mount: type=image: a container has bind"),
        (["--mount=type=bind,dst=/a"], "--mount: it has no source"),
        (["--network=container:db"], "--network: container:db: a container that is made anew"),
        (["--network=host", "-p", "80:80"], "-p: ports: in the device's own network"),
        (["--net", "pasta"], "--net: pasta is for containers without root"),
        (["--ip=10.0.0.1"], "--ip: which network the address is of is not known"),
        (["--network-alias=a"], "--network-alias: podman's own network has no names"),
        (["-e", "HOME"], "-e: HOME is taken from the environment of whoever runs it"),
        (["-e", "LD_PRELOAD=x"], "-e: environment: LD_PRELOAD would change"),
        (["--env-file=/nonexistent"], "--env-file: /nonexistent cannot be read here"),
        (["--restart=on-failure:3"], "--restart: on-failure:3: podman's attempts are not counted"),
        (
            ["--security-opt=seccomp=unconfined"],
            "--security-opt: seccomp=unconfined: Harmony keeps",
        ),
        (["--health-interval=1m"], "--health-interval: the image's own check is taken as it is"),
        (["--health-cmd=[1"], "--health-cmd: [1 is no list in JSON"),
        (["--rm=perhaps", "--init=perhaps"], "--init: 'perhaps' is neither true nor false"),
        (["--ulimit=nofile"], "--ulimit: nofile: write NAME=SOFT:HARD"),
        (["--userns=keep-id"], "--userns: keep-id: what is mounted belongs to users of the device"),
        (["--device=nvidia.com/gpu=all"], "--device: nvidia.com/gpu=all is a device by the name"),
        (["--tmpfs=/a:size=50%"], "--tmpfs: '50%' is no size"),
        (["--log-opt=tag=x"], "--log-opt: log_tag: only the journal has it"),
        (["--log-opt=label=x"], "--log-opt: a log has no option label"),
        (
            ["--log-driver=journald", "--log-opt=max-size=9m"],
            "--log-opt: log_bytes: the journal has limits of its own",
        ),
        (
            ["--log-driver=journald", "--log-opt=tag={{.ImageName}}"],
            "--log-opt: log_tag: write at most 64",
        ),
        (["--name=-"], "--name: name: write a name of letters"),
        (["--secret=DB_Pass"], "--secret: 'DB_Pass' can be no secret's name here"),
        (["--secret=db,type=volume"], "--secret: 'db,type=volume' cannot be read"),
        (["--secret=db,mode=rw"], "--secret: uid and gid are numbers, and mode is octal"),
        (["--log-driver=none"], "--log-driver: none: a log is kept"),
    ],
)
def test_what_is_wrong_is_told_of_its_flag(words: list[str], told: str) -> None:
    (line,) = refusal("podman", "run", "--name=web", *words, "docker.io/library/nginx:1")
    assert line.startswith(told)


@pytest.mark.parametrize(
    ("words", "made"),
    [
        (
            ["--log-driver=journald", "--log-opt=tag=shop"],
            {"log_driver": "journald", "log_tag": "shop"},
        ),
        (["--log-driver=journald", "--log-opt=tag={{.Name}}"], {"log_driver": "journald"}),
        (["--log-driver=json-file", "--log-opt=max-size=10m"], {"log_bytes": 10_000_000}),
    ],
)
def test_a_log_is_kept_where_it_was(words: list[str], made: dict[str, str]) -> None:
    found = container_of(read("--name=web", *words, "docker.io/library/nginx:1"))
    assert {name: found[name] for name in found if name.startswith("log_")} == made


def test_all_that_is_wrong_is_told_at_once() -> None:
    told = refusal("podman run --secret A --memory 1m -v /x --gpus all --nmae x Nginx")
    assert [each.partition(":")[0] for each in told] == [
        *("--secret", "-v", "--gpus", "--nmae", "IMAGE", "--memory"),
    ]


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("", "does not begin with `podman run`"),
        ("podman ps", "does not begin with `podman run`"),
        ("podman run", "no image is named"),
        ("podman run --name", "--name: its value is missing"),
        ("podman run -e A=$B nginx", "$ is worked out by the shell"),
        ('podman run -e "A=`id`" nginx', "` is worked out by the shell"),
        ("podman run -v ~/a:/a nginx", "~ stands for somebody's home"),
        ("podman run nginx && ls", "& joins commands"),
        ("podman run nginx\npodman run redis", "there is more than one line"),
        ("podman run 'nginx", "a ' is not closed"),
    ],
)
def test_a_command_that_is_none_is_refused(command: str, told: str) -> None:
    assert told in "\n".join(refusal(command))


def test_a_command_may_be_written_as_people_do() -> None:
    command = (
        "# The web\n  sudo docker container run -itd --rm \\\n  -p80:80 -eA='$B  c' --name web \\\n"
        '  -v "data:/data" nginx:1.29 "sleep" in\\ finity # for ever\n\n# The end\n'
    )
    imported = import_command([command], REGISTRY)
    assert container_of(imported) == {
        "name": "web",
        "image": "docker.io/library/nginx:1.29",
        "command": ["sleep", "in finity"],
        "environment": {"A": "$B  c"},
        "ports": [{"host": 80, "container": 80}],
        "volumes": [{"volume": "data", "target": "/data"}],
    }
    assert [each.partition(":")[0] for each in imported.notes] == [
        "sudo",
        "-i, -t",
        "-d",
        "--rm",
        "IMAGE",
    ]


def test_dockers_read_only_has_no_directories_to_write_in() -> None:
    imported = import_command(["docker run --read-only --name a docker.io/b/c"], REGISTRY)
    assert "tmpfs" not in container_of(imported)


def test_the_clock_of_the_device_is_its_time_zone() -> None:
    imported = read("--name=a", "-v", "/etc/localtime:/etc/localtime:ro", "docker.io/b/c")
    spec = {"name": "a", "image": "docker.io/b/c", "timezone": "local"}
    assert container_of(imported) == spec
    (note,) = imported.notes
    assert note.startswith("-v: /etc/localtime is a link on the device")


def test_what_a_container_names_comes_before_it() -> None:
    imported = read("--name=Data", "-v=data:/a", "--network=data", "docker.io/b/c:1")
    found = {each["id"]: (each["kind"], each.get("after")) for each in plain(imported.entries)}
    assert found == {
        "data-volume": ("VolumeScore", None),
        "data-network": ("ContainerNetworkScore", None),
        "data": ("ContainerScore", ["data-volume", "data-network"]),
    }


def everything() -> Imported:
    """All that can be imported by one command, but for what excludes other things."""
    apart = {"privileged", "ipc", "read-only-tmpfs", "no-healthcheck", "network-alias", "ip6", "ip"}
    words = [word for flag in DONE if flag not in apart for word in words_of(flag)]
    return read(
        *words, "docker.io/library/nginx:1.29", "say", 'a "quoted" word', "two\nlines", "ö\t%"
    )


@pytest.mark.parametrize(("name", "write"), [("a.yaml", write_yaml), ("a.py", write_python)])
def test_what_is_printed_reads_back_to_the_same_scores(
    tmp_path: Path, name: str, write: Any
) -> None:
    entries = everything().entries
    (tmp_path / name).write_text(write(entries))
    again = read_score_files([str(tmp_path / name)], REGISTRY)
    assert {i: serialize(i, each) for i, each in again.items()} == {
        i: serialize(i, each) for i, each in entries.items()
    }


def test_the_program_that_is_printed_is_the_one_that_type_checkers_read() -> None:
    """`make check` reads that file. To write it anew: python -m tests.importing.test_run."""
    assert write_python(everything().entries) == GOLDEN.read_text()


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str, stdin: str = "") -> int:
    monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
    return main(["import", *arguments])


@pytest.mark.parametrize(
    ("arguments", "stdin"),
    [
        (["run", "podman run --name web docker.io/b/c -- x"], ""),
        (["run", "--", "podman", "run", "--name", "web", "docker.io/b/c", "--", "x"], ""),
        (["run"], "podman run \\\n --name web docker.io/b/c -- x\n"),
    ],
)
def test_a_command_is_taken_in_three_ways(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    stdin: str,
) -> None:
    assert run(monkeypatch, *arguments, stdin=stdin) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert said.out == (
        "- id: web\n  kind: ContainerScore\n  spec:\n    name: web\n    image: docker.io/b/c\n"
        "    command:\n    - --\n    - x\n"
    )


def test_notes_and_refusals_go_to_standard_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "run", "--json", "docker run -d --name a docker.io/b/c") == 0
    said = capsys.readouterr()
    assert json.loads(said.out)[0]["id"] == "a"
    assert json.loads(said.err)["warning"].startswith("-d: ")
    assert run(monkeypatch, "run", "docker run --gpus all docker.io/b/c") == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("harmony: --gpus: ")


@given(st.text("ab '\"\\=-\t", max_size=20))
def test_words_are_split_as_a_shell_splits_them(text: str) -> None:
    try:
        found = split_for_shell(text)
    except ValueError:
        with pytest.raises(ValueError, match="No "):
            shlex.split(text)
        return
    assert found == shlex.split(text)


def test_words_are_split_as_the_shell_here_splits_them() -> None:
    text = 'a \'b c\' "d \\" \\$e \\x" f\\ g\\\n h#i \'\'"" j\'k\'"l" # m'
    done = subprocess.run(
        ["sh", "-c", f"printf '%s\\n' {text}"], capture_output=True, text=True, check=True
    )
    assert split_for_shell(text) == done.stdout.splitlines()


@given(st.lists(st.sampled_from([*DONE, *SHORT]) | st.text(max_size=8)), st.data())
def test_no_command_raises_anything_else(flags: list[str], data: st.DataObject) -> None:
    values = st.text(max_size=12) | st.text("/:=,.-0123456789abmks[]\"'", max_size=16)
    words = [
        f"--{flag}={data.draw(values)}" if len(flag) > 1 else f"-{flag}{data.draw(values)}"
        for flag in flags
    ]
    image = data.draw(st.just("docker.io/b/c:1") | values)
    try:
        imported = read("--name=a", *words, image, data.draw(values))
    except NotImportable:
        return
    assert write_yaml(imported.entries)
    assert write_python(imported.entries)


def test_amounts_are_read_as_podman_reads_them() -> None:
    assert [size_bytes(each) for each in ("1", "1k", "1.5g", "2MiB", "3Kb", "4b")] == [
        *(1, 1024, 1610612736, 2097152, 3072, 4),
    ]
    assert [duration_s(each) for each in ("0s", "1h2m3s", "250ms", "1.5m")] == [0, 3723, 0.25, 90]
    for wrong in ("", "m", "1x", "-1"):
        with pytest.raises(ValueError, match="write one"):
            size_bytes(wrong)
        with pytest.raises(ValueError, match="write one"):
            duration_s(wrong)


if __name__ == "__main__":
    GOLDEN.write_text(write_python(everything().entries))
