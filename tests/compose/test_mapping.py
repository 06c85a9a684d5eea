"""What each key of a compose file is on a device; and what cannot be, told with its place and what to do."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Any

import pytest

from harmony_control.compose.local import LocalPath
from harmony_control.compose.mapping import MappedProject, full_image_name, map_project
from harmony_control.compose.project import ComposeProject
from harmony_core.errors import ComposeFileError
from harmony_core.plugins import Registry
from harmony_core.resources import (
    ContainerDevice,
    ContainerSecret,
    HealthCheck,
    Mount,
    NetworkAttachment,
    PublishedPort,
    Tmpfs,
    Ulimit,
    VolumeMount,
)
from harmony_scores import ComposeScore

REGISTRY = Registry([ComposeScore])


def mapped(directory: Path, services: dict[str, Any], **document: Any) -> MappedProject:
    filled = {name: {"image": "nginx", **each} for name, each in services.items()}
    project = ComposeProject(
        "shop", directory, {"name": "shop", "services": filled, **document}, ("noted",)
    )
    return map_project(project, REGISTRY)


def score_of(directory: Path, services: dict[str, Any], **document: Any) -> ComposeScore:
    (entry,) = mapped(directory, services, **document).entries.values()
    assert isinstance(entry.score, ComposeScore)
    return entry.score


def refusals(directory: Path, services: dict[str, Any], **document: Any) -> list[str]:
    with pytest.raises(ComposeFileError) as raised:
        mapped(directory, services, **document)
    return raised.value.message.split("\n")


def bind(source: Path | str, target: str, **more: Any) -> dict[str, Any]:
    """A mount: of this machine where *source* is a Path, of the device where it is a text."""
    path = LocalPath(source) if isinstance(source, Path) else source
    return {"type": "bind", "source": path, "target": target, **more}


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("nginx", "docker.io/library/nginx:latest"),
        ("nginx:1.29", "docker.io/library/nginx:1.29"),
        ("grafana/grafana:12", "docker.io/grafana/grafana:12"),
        ("docker.io/nginx", "docker.io/library/nginx:latest"),
        ("index.docker.io/a/b:1", "docker.io/a/b:1"),
        ("ghcr.io/a/b", "ghcr.io/a/b:latest"),
        ("localhost/a:1", "localhost/a:1"),
        ("registry.lan:5000/a", "registry.lan:5000/a:latest"),
        (f"nginx@sha256:{'0' * 64}", f"docker.io/library/nginx@sha256:{'0' * 64}"),
    ],
)
def test_an_image_is_the_one_that_docker_means(written: str, meant: str) -> None:
    assert full_image_name(written) == meant


def test_a_project_is_one_entry_by_its_name(tmp_path: Path) -> None:
    document = {"name": "my_shop", "services": {"web": {"image": "nginx"}}}
    found = map_project(ComposeProject("my_shop", tmp_path, document, ("noted",)), REGISTRY)
    assert [*found.entries] == ["my-shop"]
    assert found.notes[0] == "noted"
    assert "services.web: has no restart" in found.notes[1]


def test_names_are_those_that_compose_gives(tmp_path: Path) -> None:
    score = score_of(
        tmp_path,
        {
            "web": {"volumes": [{"type": "volume", "source": "data", "target": "/data"}]},
            "db": {"container_name": "postgres", "networks": {"back": {"aliases": ["sql"]}}},
        },
        networks={"back": {"name": "shop_back", "internal": True}},
        volumes={"data": {"name": "shop_data", "labels": {"a": "b"}}},
    )
    assert [each.name for each in score.services.values()] == ["shop-web-1", "postgres"]
    assert score.services["web"].networks == (
        NetworkAttachment(network="shop_default", aliases=("web",)),
    )
    assert score.services["db"].networks == (
        NetworkAttachment(network="shop_back", aliases=("db", "sql")),
    )
    assert [(each.name, each.internal) for each in score.networks] == [
        ("shop_back", True),
        ("shop_default", False),
    ]
    assert [(each.name, each.labels) for each in score.volumes] == [("shop_data", {"a": "b"})]


def test_what_is_external_is_used_and_not_made(tmp_path: Path) -> None:
    score = score_of(
        tmp_path,
        {
            "web": {
                "networks": {"proxy": None},
                "volumes": [{"type": "volume", "source": "media", "target": "/m"}],
            }
        },
        networks={"proxy": {"name": "traefik", "external": True}},
        volumes={"media": {"name": "films", "external": True}},
    )
    assert (score.networks, score.volumes) == ((), ())
    assert score.services["web"].networks[0].network == "traefik"
    assert score.services["web"].volumes == (VolumeMount(volume="films", target="/m"),)


def test_no_network_is_made_where_none_is_used(tmp_path: Path) -> None:
    score = score_of(tmp_path, {"web": {"network_mode": "host"}})
    assert (score.networks, score.services["web"].network) == ((), "host")


def test_a_network_s_addresses_are_kept(tmp_path: Path) -> None:
    score = score_of(
        tmp_path,
        {"web": {"networks": {"lan": {"ipv4_address": "10.5.0.9"}}}},
        networks={
            "lan": {
                "name": "shop_lan",
                "enable_ipv6": True,
                "ipam": {"config": [{"subnet": "10.5.0.0/24"}]},
            }
        },
    )
    (network,) = score.networks
    assert (network.subnets, network.ipv6) == (("10.5.0.0/24",), True)
    assert score.services["web"].networks[0].address == "10.5.0.9"


def test_plain_keys_are_fields_of_the_container(tmp_path: Path) -> None:
    web = score_of(
        tmp_path,
        {
            "web": {
                "cap_add": ["NET_ADMIN", "CAP_SYS_TIME"],
                "cap_drop": ["all"],
                "command": ["serve", "--now"],
                "cpus": 1.5,
                "devices": [
                    {"source": "/dev/ttyACM0", "target": "/dev/ttyUSB0", "permissions": "rwm"}
                ],
                "dns": ["1.1.1.1"],
                "entrypoint": [],
                "environment": {"TZ": "Europe/Berlin"},
                "extra_hosts": {"host.docker.internal": "host-gateway"},
                "group_add": ["dialout"],
                "healthcheck": {
                    "test": ["CMD-SHELL", "curl -f localhost"],
                    "interval": 10.0,
                    "retries": 5,
                },
                "init": True,
                "labels": {"traefik.enable": "true"},
                "logging": {"driver": "json-file", "options": {"max-size": "10m"}},
                "mem_limit": 64 * 1024 * 1024,
                "pids_limit": -1,
                "ports": [
                    {"target": 80, "published": "8080", "protocol": "tcp"},
                    {
                        "target": 53,
                        "published": "53",
                        "protocol": "udp",
                        "host_ip": "192.0.2.1",
                    },
                    {"target": 81, "published": "81", "host_ip": "0.0.0.0"},
                    {"target": 82, "published": "82", "host_ip": "10.0.0.0"},
                ],
                "read_only": True,
                "security_opt": ["no-new-privileges:true"],
                "shm_size": 8192,
                "stop_grace_period": 30.5,
                "sysctls": {"net.core.somaxconn": "1024"},
                "tmpfs": ["/run", "/tmp:size=64m,mode=1777"],
                "ulimits": {"nofile": {"soft": 1, "hard": 2}},
                "user": "1000:1000",
                "working_dir": "/app",
            }
        },
    ).services["web"]
    assert web.image == "docker.io/library/nginx:latest"
    assert web.add_capabilities == ("NET_ADMIN", "SYS_TIME")
    assert web.drop_capabilities == ("ALL",)
    assert (web.command, web.entrypoint) == (("serve", "--now"), ())
    assert web.devices == (
        ContainerDevice(source="/dev/ttyACM0", target="/dev/ttyUSB0", access="rwm"),
    )
    assert web.extra_hosts == {"host.docker.internal": "host-gateway"}
    assert web.healthcheck == HealthCheck(shell="curl -f localhost", interval_s=10, retries=5)
    assert web.log_bytes == 10 * 1024 * 1024
    assert web.ports == (
        PublishedPort(host=8080, container=80),
        PublishedPort(host=53, container=53, protocol="udp", address="192.0.2.1"),
        PublishedPort(host=81, container=81),
        PublishedPort(host=82, container=82, address="10.0.0.0"),
    )
    assert web.no_new_privileges
    assert web.stop_timeout_s == 31
    assert web.log_driver == "k8s-file"
    assert web.tmpfs == (
        Tmpfs(target="/run"),
        Tmpfs(target="/tmp", size_bytes=64 * 1024 * 1024, mode=0o1777),
    )
    assert web.ulimits == {"nofile": Ulimit(soft=1, hard=2)}
    assert (web.user, web.working_directory, web.groups) == ("1000:1000", "/app", ("dialout",))


@pytest.mark.parametrize(
    ("restart", "is_so"),
    [
        (None, ("no", "once")),
        ("no", ("no", "once")),
        ("on-failure", ("on-failure", "once")),
        ("on-failure:3", ("on-failure", "once")),
        ("always", ("always", "always")),
        ("unless-stopped", ("always", "always")),
    ],
)
def test_when_it_is_started_again(
    tmp_path: Path, restart: str | None, is_so: tuple[str, str]
) -> None:
    web = score_of(tmp_path, {"web": {} if restart is None else {"restart": restart}})
    assert (web.services["web"].restart, web.services["web"].runs) == is_so


def test_what_is_waited_for_can_be_met(tmp_path: Path) -> None:
    score = score_of(
        tmp_path,
        {
            "web": {
                "depends_on": {
                    "db": {"condition": "service_healthy", "required": True},
                    "migrate": {"condition": "service_completed_successfully"},
                }
            },
            "db": {"restart": "always"},
            "migrate": {},
        },
    )
    assert score.services["db"].healthcheck == "image"
    assert score.services["migrate"].runs == "once"
    assert refusals(
        tmp_path,
        {
            "web": {"depends_on": {"db": {"condition": "service_completed_successfully"}}},
            "db": {"restart": "unless-stopped"},
        },
    )[0].startswith("services.db.restart: web waits until it has ended")


def test_paths_of_the_device_are_mounted_as_they_are(tmp_path: Path) -> None:
    web = score_of(
        tmp_path,
        {
            "web": {
                "volumes": [
                    bind("/srv/media", "/media", read_only=True, bind={"propagation": "rslave"}),
                    bind("/var/run/dbus", "/run/dbus"),
                    bind("/lib/modules", "/lib/modules", read_only=True),
                    bind("/etc/localtime", "/etc/localtime", read_only=True),
                    bind("/dev/bus/usb", "/dev/bus/usb"),
                ]
            }
        },
    ).services["web"]
    assert web.mounts == (
        Mount(source="/srv/media", target="/media", propagation="rslave"),
        Mount(source="/run/dbus", target="/run/dbus", read_only=False),
        Mount(source="/usr/lib/modules", target="/lib/modules"),
    )
    assert web.timezone == "local"
    assert web.devices == (ContainerDevice(source="/dev/bus/usb", target="/dev/bus/usb"),)


def test_files_beside_the_compose_file_are_pushed_along(tmp_path: Path) -> None:
    (tmp_path / "app.conf").write_text("a = 1\n")
    (tmp_path / "hooks" / "more").mkdir(parents=True)
    (tmp_path / "hooks" / "start.sh").write_text("#!/bin/sh\n")
    (tmp_path / "hooks" / "start.sh").chmod(0o755)
    (tmp_path / "hooks" / "more" / "logo.png").write_bytes(b"\x89PNG")
    found = mapped(
        tmp_path,
        {
            "web": {
                "volumes": [
                    bind(tmp_path / "app.conf", "/etc/app.conf"),
                    bind(tmp_path / "hooks", "/hooks", read_only=True),
                ]
            }
        },
    )
    (entry,) = found.entries.values()
    score = entry.score
    assert isinstance(score, ComposeScore)
    base = "/etc/harmony-apps/shop/files"
    assert [(each.path, each.content, each.mode) for each in score.files] == [
        (f"{base}/app.conf", "a = 1\n", 0o644),
        (f"{base}/hooks/start.sh", "#!/bin/sh\n", 0o755),
        (f"{base}/hooks/more/logo.png", None, 0o644),
    ]
    assert score.files[2].content_base64 == b"\x89PNG"
    assert base64.b64encode(b"\x89PNG").decode() in score.model_dump_json()
    web = score.services["web"]
    assert web.mounts == (
        Mount(source=f"{base}/app.conf", target="/etc/app.conf"),
        Mount(source=f"{base}/hooks", target="/hooks"),
    )
    assert web.uses == (f"{base}/hooks/start.sh", f"{base}/hooks/more/logo.png")
    assert any("volumes[0]: app.conf is pushed along" in each for each in found.notes)
    assert not any("volumes[1]: hooks" in each for each in found.notes)


def test_a_relative_path_without_files_is_a_volume_of_the_device(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    found = mapped(
        tmp_path,
        {
            "web": {"volumes": [bind(tmp_path / "data/db", "/db"), bind(tmp_path / "empty", "/e")]},
            "app": {"volumes": [bind(tmp_path / "data/db", "/db", read_only=True)]},
        },
    )
    (entry,) = found.entries.values()
    score = entry.score
    assert isinstance(score, ComposeScore)
    assert [each.name for each in score.volumes] == ["shop_data-db", "shop_empty"]
    assert score.services["web"].volumes == (
        VolumeMount(volume="shop_data-db", target="/db"),
        VolumeMount(volume="shop_empty", target="/e"),
    )
    assert score.services["app"].volumes[0].read_only
    assert sum("the volume shop_data-db" in each for each in found.notes) == 1


def test_configs_are_files_and_secrets_are_those_of_the_fleet(tmp_path: Path) -> None:
    (tmp_path / "b.conf").write_text("b")
    score = score_of(
        tmp_path,
        {
            "web": {
                "configs": [
                    {"source": "a", "target": "/a"},
                    {"source": "b", "target": "/b", "uid": "33", "mode": 0o440},
                ],
                "secrets": [
                    {"source": "password", "target": "/run/secrets/password"},
                    {"source": "token", "target": "/t", "uid": "7", "gid": "8", "mode": 0o400},
                ],
            }
        },
        configs={"a": {"content": "x"}, "b": {"file": str(tmp_path / "b.conf")}},
        secrets={
            "password": {"name": "db.password", "external": True},
            "token": {"external": True},
        },
    )
    found = {each.path.removeprefix("/etc/harmony-apps/shop/"): each for each in score.files}
    assert found["configs/a"].content == "x"
    assert (found["configs/b@33.root.0440"].owner, found["configs/b@33.root.0440"].mode) == (
        "33",
        0o440,
    )
    assert [each.target for each in score.services["web"].mounts] == ["/a", "/b"]
    assert score.services["web"].secrets == (
        ContainerSecret(content="${secret.db.password}", target="/run/secrets/password"),
        ContainerSecret(content="${secret.token}", target="/t", uid=7, gid=8, mode=0o400),
    )


BIG = "x" * 60_000


@pytest.mark.parametrize(
    ("service", "document", "told"),
    [
        (
            {"volumes": [bind("/var/run/docker.sock", "/var/run/docker.sock")]},
            {},
            r"services.web.volumes\[0\]: /var/run/docker.sock is Docker's.*mount /run/podman/podman.sock",
        ),
        ({"gpus": "all"}, {}, r"services.web.gpus: no container on a device has this; remove it"),
        ({"image": "NGINX"}, {}, r"services.web.image: not a full image reference"),
        (
            {"cap_add": ["NET_ADMIM"]},
            {},
            r"services.web.cap_add\[0\]: is no capability of Linux; did you mean 'NET_ADMIN'",
        ),
        (
            {"ports": [{"target": 80, "protocol": "tcp"}]},
            {},
            r"services.web.ports\[0\]: no port of the device leads to 80",
        ),
        (
            {"ports": [{"target": 53, "published": "53", "protocol": "udp", "host_ip": "0.0.0.0"}]},
            {},
            r"services.web.ports\[0\]: on all addresses, 53 is also where podman's name server",
        ),
        (
            {"privileged": True, "cap_drop": ["ALL"]},
            {},
            r"services.web.cap_drop: what is privileged has all",
        ),
        ({"healthcheck": {"interval": 5.0}}, {}, r"services.web.healthcheck: has no test"),
        (
            {"security_opt": ["seccomp:unconfined"]},
            {},
            r"services.web.security_opt\[0\]: 'seccomp:unconfined' is not done",
        ),
        ({"tmpfs": ["/t:uid=3"]}, {}, r"services.web.tmpfs\[0\]: 'uid=3' is no option here"),
        (
            {"secrets": [{"source": "DB_Pass", "target": "/run/secrets/pw"}]},
            {"secrets": {"DB_Pass": {"external": True}}},
            r"services.web.secrets\[0\]: 'DB_Pass' can be no secret's name.*name: db_pass at secrets.DB_Pass",
        ),
        (
            {"secrets": [{"source": "pw", "target": "/run/secrets/pw", "uid": "node"}]},
            {"secrets": {"pw": {"external": True}}},
            r"services.web.secrets\[0\]: uid: 'node' is no number; write one, as in 1000",
        ),
        (
            {"command": ["serve", "--password=${secret.db}"]},
            {},
            r"services.web.command: a secret stands here in clear .*; write it into environment",
        ),
        (
            {"labels": {"password": "${secret.db}"}},
            {},
            r"services.web.labels: a secret stands here in clear",
        ),
        ({}, {"models": {}}, r"models: is not known here; remove it"),
        (
            {"sysctls": {"vm.swappiness": "1"}},
            {},
            r"services.web.sysctls: vm.swappiness is the whole device's",
        ),
        (
            {"networks": {"back": None}},
            {"networks": {"back": {"name": "podman"}}},
            r"networks.back: name: podman has a meaning of its own for podman",
        ),
        (
            {
                "configs": [{"source": "a", "target": "/a"}, {"source": "b", "target": "/b"}],
            },
            {"configs": {"a": {"content": BIG}, "b": {"content": BIG}}},
            r"services.web.configs\[1\]: with configs/b, what is pushed along is more than 96 KiB",
        ),
    ],
)
def test_what_a_device_cannot_do_is_told_with_its_place_and_what_to_do(
    tmp_path: Path, service: dict[str, Any], document: dict[str, Any], told: str
) -> None:
    (found,) = refusals(tmp_path, {"web": service}, **document)
    assert re.match(told, found), found


def test_all_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    found = refusals(
        tmp_path,
        {"a": {"isolation": "x", "runtime": "y"}, "b": {"runtime": "z"}},
    )
    assert len(found) == 3


@pytest.mark.parametrize(
    ("paths", "told"),
    [
        ([".", "x"], "the project's own directory is not pushed along"),
        (["app.yaml"], "there is no file app.yaml here; write it, and push again"),
        (["data", "data/db"], "./data/db and ./data lie in each other"),
        (["a b", "a-b"], "./a-b and ./a b would be one volume, shop_a-b, on the device"),
    ],
)
def test_relative_paths_that_cannot_be_are_refused(
    tmp_path: Path, paths: list[str], told: str
) -> None:
    volumes = [bind(tmp_path / each, f"/{number}") for number, each in enumerate(paths)]
    (found,) = refusals(tmp_path, {"web": {"volumes": volumes}})
    assert told in found


def test_a_named_volume_and_a_path_are_not_one_volume_by_accident(tmp_path: Path) -> None:
    volumes = [
        {"type": "volume", "source": "data", "target": "/a"},
        bind(tmp_path / "data", "/b"),
    ]
    (found,) = refusals(
        tmp_path, {"web": {"volumes": volumes}}, volumes={"data": {"name": "shop_data"}}
    )
    assert "./data and the volume shop_data would be one volume" in found


@pytest.mark.parametrize("healthcheck", [{"disable": True}, {"test": ["NONE"]}])
def test_nobody_waits_for_a_check_that_is_disabled(
    tmp_path: Path, healthcheck: dict[str, Any]
) -> None:
    services = {
        "web": {"depends_on": {"db": {"condition": "service_healthy"}}},
        "db": {"healthcheck": healthcheck},
    }
    (told,) = refusals(tmp_path, services)
    assert told.startswith("services.web.depends_on.db: waits until db is healthy, whose")


def test_nothing_is_shown_of_what_may_have_passwords(tmp_path: Path) -> None:
    services = {
        "web": {"environment": {"A=B": "x", "PASSWORD": "hunter2"}},
        "db": {"environment": {"PASSWORD": "hunter2"}, "memswap_limit": 2**30},
    }
    told = refusals(tmp_path, services)
    assert len(told) == 2
    assert not [each for each in told if "hunter2" in each or "not {" in each]
    assert told[1] == (
        "services.db.memswap_limit: it is memory and swap together; set mem_limit, too"
    )


def test_what_is_wrong_in_a_check_is_told_by_its_keys(tmp_path: Path) -> None:
    check = {"test": ["CMD", "true"], "retries": 2000, "timeout": 4000.0}
    told = refusals(tmp_path, {"web": {"healthcheck": check}})
    assert [each.partition(": ")[0] for each in told] == [
        "services.web.healthcheck.timeout",
        "services.web.healthcheck.retries",
    ]
    assert not [each for each in told if "[_" in each or "literal" in each or "_s" in each]


def test_0_is_the_default_where_docker_has_it_so(tmp_path: Path) -> None:
    test = ["CMD", "true"]
    zero = {"test": test, "interval": 0.0, "timeout": 0.0, "retries": 0, "start_period": 0.0}
    nothing = {"cpus": 0.0, "mem_limit": 0, "shm_size": 0, "cpu_shares": 0, "user": ""}
    web = score_of(tmp_path, {"web": {"healthcheck": zero, **nothing}}).services["web"]
    assert web.healthcheck == HealthCheck(command=("true",))
    assert (web.cpus, web.memory_bytes, web.shm_bytes, web.cpu_shares, web.user) == (None,) * 5
    (told,) = refusals(tmp_path, {"web": {"healthcheck": {"test": test, "timeout": 0.5}}})
    assert told == (
        "services.web.healthcheck.timeout: is shorter than podman can measure; write 1s or more"
    )


def test_a_name_of_a_hosts_file_may_have_an_underscore(tmp_path: Path) -> None:
    hosts = {"my_db": "192.0.2.2"}
    assert score_of(tmp_path, {"web": {"extra_hosts": hosts}}).services["web"].extra_hosts == hosts
    (told,) = refusals(tmp_path, {"web": {"extra_hosts": {"my db": "192.0.2.2"}}})
    assert "write a host's name" in told


@pytest.mark.parametrize(
    ("options", "tag"),
    [
        ({}, None),
        ({"tag": "shop/web"}, "shop/web"),
        ({"tag": "{{.Name}}"}, "shop-web-1"),
        ({"tag": "docker/{{.Name}}"}, "docker/shop-web-1"),
    ],
)
def test_a_log_goes_to_the_journal(
    tmp_path: Path, options: dict[str, str], tag: str | None
) -> None:
    logging = {"driver": "journald", "options": options}
    web = score_of(tmp_path, {"web": {"logging": logging}}).services["web"]
    assert (web.log_driver, web.log_tag) == ("journald", tag)


def test_a_tag_of_another_template_is_refused_at_its_place(tmp_path: Path) -> None:
    logging = {"driver": "journald", "options": {"tag": "{{.ImageName}}"}}
    (told,) = refusals(tmp_path, {"web": {"logging": logging}})
    assert "services.web.logging" in told
    assert "write at most 64" in told
