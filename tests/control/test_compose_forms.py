"""The long form of everything that compose files have in short, and what refers to what."""

from __future__ import annotations

from pathlib import Path

import pytest

from harmony_core.errors import ComposeFileError

from .compose_files import read, service


def port(target: int, published: str, protocol: str = "tcp", **more: str) -> dict[str, object]:
    return {
        "target": target,
        "published": published,
        "protocol": protocol,
        "mode": "ingress",
        **more,
    }


@pytest.mark.parametrize(
    ("says", "expected"),
    [
        ("'8080:80'", [port(80, "8080")]),
        ("8080:80/udp", [port(80, "8080", "udp")]),
        ("127.0.0.1:8080:80", [port(80, "8080", host_ip="127.0.0.1")]),
        ("'[::1]:8080:80'", [port(80, "8080", host_ip="::1")]),
        ("'::1:8080:80'", [port(80, "8080", host_ip="::1")]),
        ("8000-8001:80-81", [port(80, "8000"), port(81, "8001")]),
        ("{target: 80, published: '8080'}", [port(80, "8080")]),
        ("{target: '80', published: 8080, protocol: udp, host_ip: 10.0.0.1, mode: host}",
         [port(80, "8080", "udp", host_ip="10.0.0.1")]),
    ],
)  # fmt: skip
def test_ports(tmp_path: Path, says: str, expected: list[object]) -> None:
    assert service(tmp_path, f"ports: [{says}]")["ports"] == expected


@pytest.mark.parametrize(
    ("says", "told"),
    [
        ("'80:http'", "'http' is no port"),
        ("'80:70000'", "70000 is no range of ports"),
        ("'8000-8002:80-81'", "are not equally many ports"),
        ("'8000-8002:80'", "are not equally many ports"),
        ("'local:80:80'", "'local' is no address"),
        ("'1-60000:1-60000'", "more than 1024 ports"),
        ("80.5", "write a port in quotes"),
        ("{published: 80}", "has no target"),
        ("''", "'' is no port"),
    ],
)
def test_wrong_ports(tmp_path: Path, says: str, told: str) -> None:
    with pytest.raises(ComposeFileError) as raised:
        service(tmp_path, f"ports: [{says}]")
    assert f"{tmp_path}/compose.yaml:4: services.web.ports[0]: " in raised.value.message
    assert told in raised.value.message


@pytest.mark.parametrize(
    ("says", "expected"),
    [
        ("data:/d", {"type": "volume", "source": "data", "target": "/d"}),
        ("data:/d/:ro", {"type": "volume", "source": "data", "target": "/d", "read_only": True}),
        (
            "'./a/../b:/d:ro,z,rslave'",
            {
                "type": "bind",
                "source": "HERE/b",
                "target": "/d",
                "read_only": True,
                "bind": {"propagation": "rslave"},
            },
        ),
        (
            "~/c:/d",
            {
                "type": "bind",
                "source": "/home/ada/c",
                "target": "/d",
            },
        ),
        (
            "{type: bind, source: /s, target: /d, bind: {create_host_path: false}}",
            {
                "type": "bind",
                "source": "/s",
                "target": "/d",
                "bind": {"create_host_path": False},
            },
        ),
        (
            "{type: tmpfs, target: /d, tmpfs: {size: 1m, mode: '1777'}}",
            {"type": "tmpfs", "target": "/d", "tmpfs": {"size": 1048576, "mode": 0o1777}},
        ),
    ],
)
def test_volumes(tmp_path: Path, says: str, expected: dict[str, object]) -> None:
    text = f"services: {{web: {{image: web, volumes: [{says}]}}}}\nvolumes: {{data: }}\n"
    (found,) = read(tmp_path, text).document["services"]["web"]["volumes"]
    if "source" in found:
        found["source"] = found["source"].replace(str(tmp_path), "HERE")
    assert found == expected


@pytest.mark.parametrize(
    ("says", "key", "expected"),
    [
        ("command: sh -c 'a | b' \"c d\"", "command", ["sh", "-c", "a | b", "c d"]),
        ("command: [a, a]", "command", ["a", "a"]),
        ("command: ''", "command", []),
        ("healthcheck: {test: a b, interval: 1m30s}", "healthcheck",
         {"test": ["CMD-SHELL", "a b"], "interval": 90.0}),
        ("healthcheck: {test: [NONE]}", "healthcheck", {"disable": True}),
        ("healthcheck: {disable: 'true'}", "healthcheck", {"disable": True}),
        ("stop_grace_period: 1h2m3s500ms", "stop_grace_period", 3723.5),
        ("mem_limit: 1.5g", "mem_limit", 1610612736),
        ("mem_limit: 64MB", "mem_limit", 67108864),
        ("mem_limit: 1024", "mem_limit", 1024),
        ("memswap_limit: -1", "memswap_limit", -1),
        ("cpus: '0.5'", "cpus", 0.5),
        ("privileged: 'yes'", "privileged", True),
        ("group_add: [44, video]", "group_add", ["44", "video"]),
        ("labels: {a: 1.0, b: true, c: }", "labels", {"a": "1", "b": "true", "c": ""}),
        ("extra_hosts: ['a:1.1.1.1', 'b=[::1]', 'c:fe80::1']", "extra_hosts",
         {"a": "1.1.1.1", "b": "::1", "c": "fe80::1"}),
        ("devices: [/dev/a, '/dev/b:rw']", "devices",
         [{"source": "/dev/a", "target": "/dev/a", "permissions": "rwm"},
          {"source": "/dev/b", "target": "/dev/b", "permissions": "rw"}]),
        ("deploy: {restart_policy: {condition: on-failure, max_attempts: 3}}", "restart", "on-failure:3"),
        ("deploy: {restart_policy: {}}\nrestart: unless-stopped", "restart", "unless-stopped"),
        ("deploy: {resources: {limits: {memory: 1k}}}", "mem_limit", 1024),
        ("deploy: {resources: {limits: {pids: '7'}}}", "pids_limit", 7),
        ("user: 1000:1000", "user", "1000:1000"),
    ],
)  # fmt: skip
def test_forms_of_a_service(tmp_path: Path, says: str, key: str, expected: object) -> None:
    assert service(tmp_path, says)[key] == expected


@pytest.mark.parametrize(
    ("says", "told"),
    [
        ("command: a && b", "& is for a shell"),
        ('command: "a \'b"', "no closing quotation"),
        ("healthcheck: {test: [curl]}", "begins with 'curl'; begin with CMD"),
        ("healthcheck: {test: a, interval: 10}", "must be a text"),
        ("healthcheck: {test: a, interval: '10'}", "'10' is no time; write it with its unit"),
        ("mem_limit: much", "'much' is no size"),
        ("cpus: few", "'few' is no number"),
        ("init: maybe", "'maybe' is not true or false"),
        ("devices: ['/dev/a:/b:r:x']", "is no device"),
        ("volumes: ['C:\\x:/y']", "is a path of Windows"),
        ("volumes: ['/a:/b:rx']", "'rx' is no option of a volume; write some of"),
        ("volumes: ['/a:']", "has nothing at one side of a colon"),
        ("extra_hosts: [a]", "'a' has no address"),
        ("volumes: ['/a:/x', '/b:/x']", "/x is the target of volumes, too"),
        ("mem_limit: 1m\ndeploy: {resources: {limits: {memory: 2m}}}", "differs from mem_limit"),
        ("networks: [a]\nnetwork_mode: host", "goes with no network_mode"),
        ("ulimits: {nofile: many}", "'many' is no whole number"),
        ("env_file: [{path: x, format: toml}]", "format 'toml' is unknown"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_place(tmp_path: Path, says: str, told: str) -> None:
    with pytest.raises(ComposeFileError) as raised:
        service(tmp_path, says)
    assert told in raised.value.message
    assert "; " in raised.value.message


def test_networks_volumes_configs_and_secrets_have_names(tmp_path: Path) -> None:
    text = """
    name: shop
    services:
      web:
        image: web
        networks: [front, {}]
        configs: [app, {source: other, target: /etc/other, mode: 0440}]
        secrets: [{source: key, target: the-key, uid: "1"}]
        volumes: [data:/data, old:/old]
      db: {image: db, networks: {front: {aliases: [database], ipv4_address: 10.1.0.5}, default: }}
    networks:
      front: {driver: bridge, ipam: {config: [{subnet: 10.1.0.0/24}]}, internal: "true"}
    volumes: {data: {labels: [a=1]}, old: {external: true}}
    configs: {app: {content: "a: $A"}, other: {environment: A}}
    secrets: {key: {external: true}}
    """.replace(", {}]", "]")
    document = read(tmp_path, text, environment={"A": "1"}).document
    web, db = (document["services"][name] for name in ("web", "db"))
    assert web["configs"] == [
        {"source": "app", "target": "/app"},
        {"source": "other", "target": "/etc/other", "mode": 0o440},
    ]
    assert web["secrets"] == [{"source": "key", "target": "/run/secrets/the-key", "uid": "1"}]
    assert db["networks"]["front"] == {"aliases": ["database"], "ipv4_address": "10.1.0.5"}
    assert document["networks"] == {
        "front": {
            "driver": "bridge",
            "ipam": {"config": [{"subnet": "10.1.0.0/24"}]},
            "internal": True,
            "name": "shop_front",
        },
        "default": {"name": "shop_default"},
    }
    assert document["volumes"] == {
        "data": {"labels": {"a": "1"}, "name": "shop_data"},
        "old": {"external": True, "name": "old"},
    }
    assert document["configs"]["app"] == {"content": "a: 1"}
    assert document["configs"]["other"] == {"content": "1"}
    assert document["secrets"] == {"key": {"external": True, "name": "key"}}


def test_who_is_used_is_waited_for(tmp_path: Path) -> None:
    text = """
    services:
      web: {image: web, links: [db], depends_on: [cache]}
      db: {image: db}
      cache: {image: cache}
    """
    web = read(tmp_path, text).document["services"]["web"]
    assert web["depends_on"]["db"]["condition"] == "service_started"
    assert "links" not in web


A = "services: {{a: {{image: a, {}}}}}\n"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (A.format("networks: [frnt]") + "networks: {front: }", "no network 'frnt'; did you mean 'front'?"),
        (A.format("volumes: ['data:/d']"), "there is no volume 'data'; write it under volumes"),
        (A.format("configs: [x]"), "there is no config 'x'"),
        (A.format("secrets: [x]"), "there is no secret 'x'"),
        (A.format("depends_on: [bb]"), "services.a.depends_on.bb: there is no such service"),
        ("services: {a: {image: a, links: [b]}, b: {image: b, links: [a]}}", "waits for itself in the end"),
        ("services: {a: {init: true}}", "services.a: has no image"),
        (A.format("container_name: xx},\n b: {image: b, container_name: xx"), "is that of a, too"),
        (A.format("configs: [x]") + "configs: {x: {}}", "needs one of file, environment or content"),
        (A.format("configs: [x]") + "configs: {x: {environment: N}}", "the variable N is not set"),
        (A.format("secrets: [x]") + "secrets: {x: {environment: N}}",
         "secrets.x.environment: what is in it would stand in the manifest"),
        (A.format("secrets: [x]") + "secrets: {x: {file: ./x.txt}}", "harmony secret set NAME --file FILE"),
        (A.format("secrets: [x]") + "secrets: {x: {}}", "secrets.x: is from nowhere; write external: true"),
        (A.format("volumes: ['vv:/d']") + "volumes: {vv: {external: true, driver: local}}",
         "volumes.vv.driver: what is external is not made here"),
        ("services: {}", "has no services"),
        ("name: x", "has no services"),
    ],
)  # fmt: skip
def test_what_does_not_fit_together_is_told(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(ComposeFileError) as raised:
        read(tmp_path, text)
    assert told in raised.value.message
