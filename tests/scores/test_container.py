"""ContainerScore: what a person writes, and what becomes of it."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from harmony_core import Failure, HasContainers, HttpProbe, Mount, Noop, PublishedPort, Success
from harmony_core.errors import InvalidResource
from harmony_core.images import IMAGE_MARK
from harmony_core.resources import Container, first_problem
from harmony_core.secret_values import secret_word
from harmony_core.stage import Stage
from harmony_core.testing import (
    AllowAll,
    FakePi,
    ListAudit,
    NoClaims,
    interpret_once,
    interpret_twice,
)
from harmony_pi_topology.containers.spec import resolve_desired
from harmony_scores import ContainerScore, WebAppScore

IMAGE = "registry.local/web:1"
FULL = ContainerScore(
    name="web",
    image=IMAGE,
    command=("serve", "--port", "80"),
    environment={"COLOUR": "red"},
    ports=(PublishedPort(host=8080, container=80),),
    mounts=(Mount(source="/srv/web", target="/www"),),
    uses=("/srv/web/index.html",),
    user="www",
    read_only=True,
    memory_bytes=64 * 1024 * 1024,
    restart="on-failure",
    stop_timeout_s=3,
    ready=HttpProbe(port=8080),
    settle_s=0,
    pull_timeout_s=60,
)
ALL_ELSE = ContainerScore.model_validate(
    {
        "name": "all",
        "image": IMAGE,
        "entrypoint": [],
        "command": ["serve"],
        "working_directory": "/www",
        "hostname": "web-1",
        "labels": {"traefik.enable": "true"},
        "groups": ["video", "44"],
        "add_capabilities": ["NET_ADMIN"],
        "drop_capabilities": ["ALL"],
        "no_new_privileges": True,
        "devices": [
            {"source": "/dev/ttyUSB0"},
            {"source": "/dev/serial/by-path/pci-0:1.0", "target": "/dev/gps", "access": "r"},
        ],
        "device_rules": ["c 188:* rwm", "b *:* r"],
        "read_only": True,
        "tmpfs": [{"target": "/tmp", "size_bytes": 1 << 20, "mode": "1777"}, {"target": "/run"}],
        "shm_bytes": 1 << 26,
        "memory_bytes": 1 << 26,
        "memory_reservation_bytes": 1 << 25,
        "memory_swap_bytes": -1,
        "cpus": 1.5,
        "cpu_shares": 512,
        "cpuset": "0-1,3",
        "pids": 50,
        "ulimits": {"nofile": {"soft": 1024, "hard": -1}},
        "init": True,
        "stop_signal": "SIGRTMIN+3",
        "sysctls": {"net.core.somaxconn": "1024"},
        "log_bytes": 1 << 22,
        "timezone": "America/Argentina/Buenos_Aires",
        "dns": ["192.0.2.1", "2001:db8::1"],
        "dns_search": ["example.org", "."],
        "dns_options": ["ndots:2", "rotate"],
        "extra_hosts": {"db": "192.0.2.2", "pi": "host-gateway"},
        "pid": "host",
        "ipc": "shareable",
        "healthcheck": {"command": ["test", "-e", "/up"], "interval_s": 10},
    }
)


@pytest.mark.parametrize(
    "score",
    [ContainerScore(name="web", image=IMAGE), FULL, ALL_ELSE],
    ids=["least", "full", "all else"],
)
async def test_interpreted_twice_it_is_success_then_noop(score: ContainerScore) -> None:
    pi = FakePi()
    pi.files.write("/srv/web/index.html", b"hello")
    for device in score.devices:
        await pi.containers.plug_in(device.source, "c 188:0")
    first, second = await interpret_twice(score, pi.offers)
    assert isinstance(first, Success)
    assert second == Noop()


async def test_a_file_that_it_uses_makes_it_anew_when_it_changes() -> None:
    pi = FakePi()
    pi.files.write("/srv/web/index.html", b"hello")
    await interpret_once(FULL, pi.offers)
    pi.files.write("/srv/web/index.html", b"good morning")
    assert isinstance((await interpret_once(FULL, pi.offers)).outcome, Success)


async def test_an_image_that_is_not_there_is_a_failure() -> None:
    pi = FakePi()
    pi.containers.missing_images.add(IMAGE)
    verdict = await interpret_once(ContainerScore(name="web", image=IMAGE), pi.offers)
    assert isinstance(verdict.outcome, Failure)
    assert verdict.outcome.error.code == "ImageNotFound"


def test_json_there_and_back_is_the_same_score() -> None:
    assert ContainerScore.model_validate(FULL.model_dump(mode="json")) == FULL
    assert ContainerScore.model_validate_json(FULL.model_dump_json()) == FULL
    assert ContainerScore.model_validate_json(ALL_ELSE.model_dump_json()) == ALL_ELSE


def test_it_has_every_field_of_a_container() -> None:
    assert set(ContainerScore.model_fields) == set(Container.model_fields)


def test_ports_and_mounts_are_written_as_plain_lists() -> None:
    score = ContainerScore.model_validate(
        {
            "name": "web",
            "image": IMAGE,
            "ports": [{"host": 8080, "container": 80}],
            "mounts": [{"source": "/srv/web", "target": "/www"}],
            "ready": {"probe": "tcp", "port": 8080},
        }
    )
    assert score.ports == (PublishedPort(host=8080, container=80),)
    assert score.mounts == (Mount(source="/srv/web", target="/www", read_only=True),)


@pytest.mark.parametrize("kind", [ContainerScore, WebAppScore])
def test_its_image_is_marked_so_that_a_push_can_resolve_the_tag(
    kind: type[ContainerScore | WebAppScore],
) -> None:
    assert IMAGE_MARK in kind.model_fields["image"].metadata


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"name": "-web"}, "name: "),
        ({"name": "a/b"}, "name: "),
        ({"image": "nginx"}, "image: "),
        ({"image": "oci-archive:/tmp/x.tar"}, "image: "),
        ({"image": "dir:/srv/image"}, "image: "),
        ({"image": "containers-storage:localhost/web:1"}, "image: "),
        ({"image": "docker://registry.local/web:1"}, "image: "),
        ({"image": "user:secret@registry.local/web:1"}, "image: "),
        ({"image": "registry.local/web:1 --privileged"}, "image: "),
        ({"environment": {"LD_PRELOAD": "x"}}, "environment: "),
        ({"environment": {"A=B": "x"}}, "environment: "),
        ({"environment": {"A": "x\0"}}, "environment: "),
        ({"ports": [{"host": 0, "container": 80}]}, "ports.0.host: "),
        ({"ports": [{"host": 80}]}, "ports.0.container: "),
        ({"ports": [{"host": 80, "container": 1}] * 2}, "ports: "),
        ({"ports": ["80:80"]}, "ports.0: "),
        ({"mounts": [{"source": "srv", "target": "/www"}]}, "mounts.0.source: "),
        ({"mounts": [{"source": "/srv:z", "target": "/www"}]}, "mounts.0.source: "),
        ({"mounts": [{"source": f"/{n}", "target": "/w"} for n in "ab"]}, "mounts: "),
        ({"uses": ["x"]}, "uses.0: "),
        ({"memory_bytes": 1024}, "memory_bytes: "),
        ({"restart": "sometimes"}, "restart: "),
        ({"ready": {"probe": "exec"}}, "ready: "),
        ({"devices": ["/dev/mem"]}, "devices.0: "),
        ({"mounts": [{"source": "/srv,rw", "target": "/www"}]}, "mounts.0.source: "),
        ({"mounts": [{"source": "/srv", "target": "/www:rw"}]}, "mounts.0.target: "),
        ({"userns": "host"}, "userns: "),
        ({"cap_add": ["SYS_ADMIN"]}, "cap_add: "),
        ({"security_opt": ["label=disable"]}, "security_opt: "),
        ({"sysctls": {"kernel.panic": "1"}}, "sysctls: "),
        ({"annotations": {"run.oci.keep_original_groups": "1"}}, "annotations: "),
        ({"volumes_from": ["other"]}, "volumes_from: "),
        ({"working_directory": "www"}, "working_directory: "),
        ({"hostname": "web_1"}, "hostname: "),
        ({"hostname": "a" * 65}, "hostname: "),
        ({"labels": {"harmony.resource": "x"}}, "labels: harmony.resource begins with harmony."),
        ({"labels": {"a=b": "x"}}, "labels: "),
        ({"groups": ["video audio"]}, "groups.0: write the name of a group"),
        (
            {"add_capabilities": ["CAP_NET_ADMIN"]},
            "add_capabilities.0: is no capability of Linux; did",
        ),
        ({"add_capabilities": ["net_admin"]}, "add_capabilities.0: "),
        ({"drop_capabilities": ["ALLES"]}, "drop_capabilities.0: "),
        (
            {"add_capabilities": ["NET_RAW"], "drop_capabilities": ["NET_RAW"]},
            "drop_capabilities: NET_RAW is in add_capabilities, too",
        ),
        ({"privileged": True, "drop_capabilities": ["KILL"]}, "drop_capabilities: "),
        (
            {"privileged": True, "devices": [{"source": "/dev/a", "target": "/dev/b"}]},
            "devices: what is privileged sees every device at its own path",
        ),
        ({"devices": [{"source": "/srv/x"}]}, "devices.0: source: /srv/x is not below /dev"),
        ({"devices": [{"source": "/dev"}]}, "devices.0: "),
        ({"devices": [{"source": "/dev/../etc/shadow"}]}, "devices.0.source: "),
        ({"devices": [{"source": "/dev/a:b"}]}, "devices.0: target: "),
        ({"devices": [{"source": "/dev/a", "access": "x"}]}, "devices.0.access: "),
        ({"device_rules": ["c 188 rwm"]}, "device_rules.0: write a type"),
        ({"tmpfs": [{"target": "/tmp"}] * 2}, "tmpfs: /tmp is the target of something else"),
        (
            {"mounts": [{"source": "/srv", "target": "/tmp"}], "tmpfs": [{"target": "/tmp"}]},
            "tmpfs: /tmp is the target of something else, too",
        ),
        (
            {"tmpfs": [{"target": "/dev/x"}], "devices": [{"source": "/dev/x"}]},
            "devices: /dev/x is the target of something else, too",
        ),
        ({"tmpfs": [{"target": "/tmp", "size_bytes": 1}]}, "tmpfs.0.size_bytes: "),
        ({"tmpfs": [{"target": "/tmp", "mode": 1777}]}, "tmpfs.0.mode: write three or four octal"),
        ({"tmpfs": [{"target": "/tmp", "mode": "rwx"}]}, "tmpfs.0.mode: "),
        ({"tmpfs": [{"target": "/run/harmony-hold"}], "max_hold_s": 5}, "mounts: "),
        ({"cpuset": "0,3-1"}, "cpuset: 3-1 counts down; write 1-3"),
        (
            {"volumes": ({"volume": "data", "target": "/proc"},)},
            "volumes: no program runs with something else at /proc; choose another target",
        ),
        ({"volumes": ({"volume": "data", "target": "/dev"},)}, "volumes: no program runs"),
        ({"tmpfs": ({"target": "/sys"},)}, "tmpfs: no program runs"),
        ({"mounts": ({"source": "/srv", "target": "/proc/acpi"},)}, "mounts: no program runs"),
        ({"memory_swap_bytes": 1 << 26}, "memory_swap_bytes: it is memory and swap together; set"),
        ({"memory_bytes": 1 << 26, "memory_swap_bytes": 1 << 25}, "memory_swap_bytes: "),
        (
            {"memory_bytes": 1 << 25, "memory_reservation_bytes": 1 << 26},
            "memory_reservation_bytes: ",
        ),
        ({"cpus": 0}, "cpus: "),
        ({"cpuset": "0..3"}, "cpuset: write the numbers of processors in quotes"),
        ({"pids": 0}, "pids: "),
        ({"ulimits": {"files": {"soft": 1, "hard": 1}}}, "ulimits.files"),
        (
            {"ulimits": {"nofile": {"soft": 2, "hard": 1}}},
            "ulimits.nofile: soft: 2 is more than hard",
        ),
        ({"ulimits": {"nofile": {"soft": -1, "hard": 1}}}, "ulimits.nofile: soft: -1 is more"),
        ({"stop_signal": "SIGNALL"}, "stop_signal: is no signal of Linux"),
        ({"stop_signal": "SIGRTMIN+99"}, "stop_signal: "),
        ({"stop_signal": "0"}, "stop_signal: "),
        ({"sysctls": {"vm.swappiness": "1"}}, "sysctls: vm.swappiness is the whole device's"),
        ({"sysctls": {"net.core.somaxconn": ""}}, "sysctls: "),
        (
            {"sysctls": {"net.ipv4.ip_forward": "1"}, "network": "host"},
            "sysctls: with network: host",
        ),
        ({"sysctls": {"kernel.shmmax": "1"}, "ipc": "host"}, "sysctls: with ipc: host"),
        ({"shm_bytes": 1 << 20, "ipc": "host"}, "shm_bytes: "),
        ({"log_bytes": 1}, "log_bytes: "),
        ({"log_driver": "none"}, "log_driver: "),
        ({"log_driver": "journald", "log_bytes": 1 << 22}, "log_bytes: the journal has limits"),
        ({"log_tag": "shop"}, "log_tag: only the journal has it"),
        ({"log_driver": "journald", "log_tag": "-n"}, "log_tag: write at most 64"),
        ({"log_driver": "journald", "log_tag": "{{.Config.Env}}"}, "log_tag: write at most 64"),
        ({"log_driver": "journald", "log_tag": "a\nb"}, "log_tag: write at most 64"),
        ({"timezone": "../etc/shadow"}, "timezone: write a time zone, as in Europe/Berlin"),
        ({"timezone": "/etc/localtime"}, "timezone: "),
        ({"dns": ["one.one"]}, "dns.0: write an IP address"),
        ({"dns_search": ["a b"]}, "dns_search.0: "),
        ({"dns_options": ["ndots: 2"]}, "dns_options.0: "),
        ({"dns": ["1.1.1.1"], "network": "none"}, "dns: without a network"),
        ({"extra_hosts": {"db": "somewhere"}}, "extra_hosts.db: write an IP address"),
        ({"extra_hosts": {"d b": "1.1.1.1"}}, "extra_hosts.d b"),
        ({"network": "container:db"}, "network: "),
        ({"network": "host", "ports": [{"host": 1, "container": 1}]}, "ports: in the device's own"),
        ({"network": "none", "ports": [{"host": 1, "container": 1}]}, "ports: without a network"),
        ({"pid": "container:db"}, "pid: "),
        ({"ipc": "other"}, "ipc: "),
        ({"healthcheck": {}}, "healthcheck"),
        ({"healthcheck": {"command": ["a"], "shell": "a"}}, "healthcheck"),
        ({"healthcheck": {"command": []}}, "healthcheck"),
        ({"healthcheck": {"shell": "a", "retries": 0}}, "healthcheck"),
        (
            {"mounts": [{"source": "/srv", "target": "/www", "propagation": "shared"}]},
            "mounts.0.propagation: ",
        ),
    ],
    ids=str,
)
def test_what_is_wrong_is_named_by_its_field(fields: dict[str, object], field: str) -> None:
    with pytest.raises(ValidationError) as caught:
        ContainerScore.model_validate({"name": "web", "image": IMAGE, **fields})
    assert first_problem(caught.value).startswith(field)


def test_what_says_nothing_of_its_log_has_the_bytes_and_the_hash_that_it_always_had() -> None:
    container = Container(name="web", image=IMAGE)
    assert not {"log_driver", "log_tag"} & container.model_dump(mode="json").keys()
    assert resolve_desired(container, {}).fields.keys() == {"image"}
    journald = Container(name="web", image=IMAGE, log_driver="journald")
    assert Container.model_validate_json(journald.model_dump_json()) == journald
    assert resolve_desired(journald, {}).fields.keys() == {"image", "log_driver"}


def test_an_editor_is_told_what_every_field_is_for() -> None:
    properties = ContainerScore.model_json_schema()["properties"]
    assert all(field.get("description") for field in properties.values())


@pytest.mark.parametrize("name", ["discovery.type", "spring-profile", "_x", "A1", "xpack.ml.on"])
def test_an_environment_variable_may_have_dots_and_dashes_as_podman_has_it(name: str) -> None:
    assert ContainerScore(name="web", image=IMAGE, environment={name: "x"}).environment


@pytest.mark.parametrize(
    "name", ["", "A=B", "a b", "1A", ".a", "-a", "A\n", "LD_PRELOAD", "\u00e4"]
)
def test_any_other_name_of_an_environment_variable_is_refused(name: str) -> None:
    with pytest.raises(ValidationError) as caught:
        ContainerScore(name="web", image=IMAGE, environment={name: "x"})
    assert first_problem(caught.value).startswith("environment: ")


def test_a_tree_of_the_device_may_stand_where_programs_look_for_devices() -> None:
    mount = Mount(source="/dev", target="/dev")
    assert ContainerScore(name="web", image=IMAGE, mounts=(mount,)).mounts == (mount,)


@pytest.mark.parametrize("user", ["1000", "www-data", "1000:1000", "www-data:100", "0:adm"])
def test_a_user_may_come_with_a_group(user: str) -> None:
    assert ContainerScore(name="web", image=IMAGE, user=user).user == user


@pytest.mark.parametrize("user", ["", ":", "1000:", ":1000", "a:b:c", "a b", "1000:1000\n"])
def test_any_other_user_is_refused_with_an_example(user: str) -> None:
    with pytest.raises(ValidationError, match="1000:1000") as caught:
        ContainerScore(name="web", image=IMAGE, user=user)
    assert first_problem(caught.value).startswith("user: ")


@pytest.mark.parametrize("address", ["::1", "0:0:0:0:0:0:0:1"])
def test_what_podman_cannot_lead_into_a_container_is_refused_with_a_way_out(address: str) -> None:
    with pytest.raises(ValidationError, match=r"publish on 127\.0\.0\.1, or on ::"):
        PublishedPort(host=8080, container=80, address=address)


@pytest.mark.parametrize(
    ("secret", "told"),
    [
        ({"content": "hunter2"}, "there is no secret in it"),
        ({"content": "${secrets.db}"}, "there is no secret in it"),
        ({"target": "run/db"}, "secrets"),
        ({"target": f"/run/{secret_word('web', 'db', '0' * 16)}"}, "a path cannot have a secret"),
        ({"mode": 440}, "in quotes"),
        ({"uid": -1}, "secrets"),
        ({"target": "/www"}, "/www is the target of something else, too"),
    ],
)
def test_what_cannot_be_a_secret_is_told(secret: dict[str, object], told: str) -> None:
    fields = {"content": "${secret.db}", "target": "/run/secrets/db", **secret}
    with pytest.raises(ValidationError, match=told):
        ContainerScore.model_validate(
            {
                "name": "web",
                "image": IMAGE,
                "mounts": [{"source": "/srv/web", "target": "/www"}],
                "secrets": [fields],
            }
        )


@pytest.mark.parametrize(
    ("login", "told"),
    [
        ({"username": "me", "password": "hunter2"}, "it would stand in clear in the manifest"),
        ({"username": "me:you", "password": "${secret.db}"}, "username"),
        ({"username": "me"}, "password"),
    ],
)
def test_what_cannot_be_a_login_is_told(login: dict[str, str], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        ContainerScore.model_validate({"name": "web", "image": IMAGE, "login": login})


@pytest.mark.parametrize(
    "fields",
    [
        {"command": ("--password=WORD",)},
        {"labels": {"password": "WORD"}},
        {"healthcheck": {"shell": "test WORD"}},
        {"working_directory": "/WORD"},
    ],
)
async def test_a_secret_stands_only_where_nobody_else_can_read_it(
    fields: dict[str, object],
) -> None:
    pi, word = FakePi(), secret_word("web", "db", "0" * 16)
    pi.files.secret_values.put(word, "hunter2")
    text = json.dumps({"name": "web", "image": IMAGE, **fields}).replace("WORD", word)
    container = Container.model_validate_json(text)
    stage = Stage(
        offers=pi.offers,
        policy=AllowAll(),
        claims=NoClaims(),
        audit=ListAudit(),
        secret_words=[word],
    )
    with pytest.raises(InvalidResource, match="of a container, environment, login, secrets can"):
        await stage.topology(HasContainers).containers.ensure(container)
    assert await pi.containers.observe("web") is None
