"""Every key that is called done does something: with it the Score differs, or something is told."""

from __future__ import annotations

import json
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, cast

import pytest

from harmony_control.compose.keys import DONE, ONE_VALUE
from harmony_control.compose.mapping import map_project
from harmony_control.compose.project import read_project
from harmony_core.errors import ComposeFileError
from harmony_core.plugins import Registry
from harmony_scores import ComposeScore
from tests.control.compose_files import write

_REGISTRY = Registry([ComposeScore])
_FILES = {
    "raw.env": "A='1'\n",
    "labels": "a=b\n",
    "app.conf": "x\n",
    "base.yaml": "services: {web: {image: other, init: true}, base: {image: other, tty: true}}\n",
    "more/compose.yaml": "services: {more: {image: 'more:${TAG:-1}', volumes: ['./x.conf:/x']}}\n",
    "more/x.conf": "x\n",
    "more/other.env": "TAG=2\n",
    "x.conf": "y\n",
}
_BASE: dict[str, Any] = {
    "name": "shop",
    "include": [{"path": "more/compose.yaml"}],
    "services": {
        "web": {
            "image": "web",
            "configs": [{"source": "conf"}],
            "depends_on": {"db": {"condition": "service_started"}},
            "deploy": {"resources": {"limits": {}, "reservations": {}}},
            "devices": [{"source": "/dev/a"}],
            "env_file": [{"path": "raw.env"}],
            "healthcheck": {"test": ["CMD", "true"]},
            "logging": {"driver": "journald", "options": {}},
            "networks": {"lan": {}},
            "ports": [{"target": 80, "published": "8080"}],
            "secrets": [{"source": "pw"}],
            "ulimits": {"nofile": {"soft": 1, "hard": 9}},
            "volumes": [
                {"type": "bind", "source": "/srv/a", "target": "/a", "bind": {}},
                {"type": "tmpfs", "target": "/b", "tmpfs": {}},
                {"type": "volume", "source": "data", "target": "/c"},
            ],
        },
        "db": {"image": "db"},
        "base": {"image": "base", "init": True},
    },
    "networks": {"lan": {"ipam": {"config": [{}]}}},
    "volumes": {"data": {}},
    "configs": {"conf": {"content": "x"}},
    "secrets": {"pw": {"external": True}},
}
_NAMES = {
    "services": "web",
    "depends_on": "db",
    "networks": "lan",
    "ulimits": "nofile",
    "volumes": "data",
    "configs": "conf",
    "secrets": "pw",
}
_AT = {"services.*.volumes[].tmpfs": 1}
"""Which item of a list, where it is not the first."""

_POLICY = {"condition": "on-failure", "max_attempts": 3}
_VALUES: dict[str, Any] = {
    "name": "store",
    "include": [{"path": "more/compose.yaml"}],
    "include[].path": "more/compose.yaml",
    "include[].env_file": "more/other.env",
    "include[].project_directory": ".",
    **{key: _BASE[key] for key in ("services", "networks", "volumes", "configs", "secrets")},
    "services.*.cap_add": ["NET_ADMIN"],
    "services.*.cap_drop": ["ALL"],
    "services.*.command": "serve",
    "services.*.container_name": "mine",
    "services.*.configs[].target": "/other",
    "services.*.configs[].uid": "7",
    "services.*.configs[].gid": "7",
    "services.*.configs[].mode": 0o400,
    "services.*.secrets[].target": "/other",
    "services.*.secrets[].uid": "7",
    "services.*.secrets[].gid": "7",
    "services.*.secrets[].mode": 0o400,
    "services.*.cpu_shares": 512,
    "services.*.cpus": 1.5,
    "services.*.cpuset": "0-1",
    "services.*.deploy": {"resources": {"limits": {"cpus": 2}}},
    "services.*.deploy.replicas": 2,
    "services.*.deploy.resources": {"limits": {"cpus": 2}},
    "services.*.deploy.resources.limits": {"cpus": 2},
    "services.*.deploy.resources.limits.cpus": 2,
    "services.*.deploy.resources.limits.memory": "64m",
    "services.*.deploy.resources.limits.pids": 7,
    "services.*.deploy.resources.reservations": {"memory": "64m"},
    "services.*.deploy.resources.reservations.memory": "64m",
    "services.*.deploy.restart_policy": _POLICY,
    "services.*.deploy.restart_policy.condition": "on-failure",
    "services.*.deploy.restart_policy.max_attempts": 3,
    "services.*.depends_on.*.condition": "service_healthy",
    "services.*.depends_on.*.required": False,
    "services.*.device_cgroup_rules": ["c 188:* rwm"],
    "services.*.devices[].source": "/dev/a",
    "services.*.devices[].target": "/dev/b",
    "services.*.devices[].permissions": "r",
    "services.*.dns": ["1.1.1.1"],
    "services.*.dns_opt": ["ndots:1"],
    "services.*.dns_search": ["example.org"],
    "services.*.entrypoint": ["/run"],
    "services.*.env_file[].path": "raw.env",
    "services.*.env_file[].format": "raw",
    "services.*.env_file[].required": False,
    "services.*.environment": {"B": "1"},
    "services.*.extends": {"service": "base"},
    "services.*.extends.service": "base",
    "services.*.extends.file": "base.yaml",
    "services.*.extra_hosts": {"a": "1.1.1.1"},
    "services.*.group_add": ["dialout"],
    "services.*.healthcheck.disable": True,
    "services.*.healthcheck.interval": "9s",
    "services.*.healthcheck.retries": 9,
    "services.*.healthcheck.start_period": "9s",
    "services.*.healthcheck.test": ["CMD", "true"],
    "services.*.healthcheck.timeout": "9s",
    "services.*.hostname": "me",
    "services.*.image": "web",
    "services.*.init": True,
    "services.*.ipc": "host",
    "services.*.label_file": "labels",
    "services.*.labels": {"c": "d"},
    "services.*.links": ["base"],
    "services.*.logging.driver": "journald",
    "services.*.logging.options": {"tag": "x"},
    "services.*.mem_limit": "64m",
    "services.*.mem_reservation": "32m",
    "services.*.memswap_limit": "128m",
    "services.*.network_mode": "host",
    "services.*.networks.*.aliases": ["other"],
    "services.*.networks.*.ipv4_address": "10.9.0.9",
    "services.*.networks.*.ipv6_address": "fd00::9",
    "services.*.pid": "host",
    "services.*.pids_limit": 9,
    "services.*.ports[].host_ip": "127.0.0.1",
    "services.*.ports[].target": 80,
    "services.*.ports[].published": "8080",
    "services.*.ports[].protocol": "udp",
    "services.*.privileged": True,
    "services.*.profiles": ["never"],
    "services.*.read_only": True,
    "services.*.restart": "always",
    "services.*.scale": 2,
    "services.*.security_opt": ["no-new-privileges:true"],
    "services.*.shm_size": "64m",
    "services.*.stop_grace_period": "9s",
    "services.*.stop_signal": "SIGINT",
    "services.*.sysctls": {"net.core.somaxconn": "9"},
    "services.*.tmpfs": ["/t"],
    "services.*.ulimits.*.soft": 1,
    "services.*.ulimits.*.hard": 9,
    "services.*.user": "1000",
    "services.*.volumes[].type": "bind",
    "services.*.volumes[].source": "/srv/a",
    "services.*.volumes[].target": "/a",
    "services.*.volumes[].read_only": True,
    "services.*.volumes[].bind": {"propagation": "rslave"},
    "services.*.volumes[].bind.propagation": "rslave",
    "services.*.volumes[].bind.create_host_path": True,
    "services.*.volumes[].tmpfs": {"size": "1m"},
    "services.*.volumes[].tmpfs.size": "1m",
    "services.*.volumes[].tmpfs.mode": 0o700,
    "services.*.working_dir": "/w",
    "networks.*.name": "other",
    "networks.*.driver": "macvlan",
    "networks.*.ipam": {"config": [{"subnet": "10.9.0.0/24"}]},
    "networks.*.ipam.driver": "dhcp",
    "networks.*.ipam.config": [{"subnet": "10.9.0.0/24"}],
    "networks.*.ipam.config[].subnet": "10.9.0.0/24",
    "networks.*.external": True,
    "networks.*.external.name": "other",
    "networks.*.internal": True,
    "networks.*.enable_ipv4": False,
    "networks.*.enable_ipv6": True,
    "networks.*.labels": {"a": "b"},
    "volumes.*.name": "other",
    "volumes.*.driver": "nfs",
    "volumes.*.external": True,
    "volumes.*.external.name": "other",
    "volumes.*.labels": {"a": "b"},
    "configs.*.content": "y",
    "configs.*.environment": "HOME",
    "configs.*.file": "app.conf",
    "secrets.*.name": "other",
    "secrets.*.external": True,
    "secrets.*.external.name": "other",
}
"""A value of each; those that a mapping or list of the base has stand there."""

_WITHOUT: dict[str, tuple[tuple[str, ...], ...]] = {
    "services.*.network_mode": (("services", "web", "networks"), ("services", "web", "ports")),
    "services.*.deploy.restart_policy.condition": (("services", "web", "restart"),),
    "networks.*.external": (("networks", "lan", "ipam"),),
    "networks.*.external.name": (("networks", "lan", "ipam"),),
    "configs.*.environment": (("configs", "conf", "content"),),
    "configs.*.file": (("configs", "conf", "content"),),
}
"""What goes from the base, since it cannot stand beside the key."""
_BESIDE: dict[str, dict[str, Any]] = {
    "services.*.memswap_limit": {"mem_limit": "64m"},
    "services.*.env_file[].required": {"env_file": [{"path": "none.env"}]},
    "services.*.deploy.restart_policy.max_attempts": {
        "deploy": {"restart_policy": {"condition": "on-failure"}}
    },
    "services.*.extends.file": {"extends": {"service": "base"}},
}
"""What else its service has."""


def path_of(key: str) -> list[str | int]:
    """Where *key* stands in the base."""
    path: list[str | int] = []
    so_far = ""
    for part in key.split("."):
        so_far = f"{so_far}.{part}" if so_far else part
        if part == "*":
            path.append(_NAMES[str(path[-1])])
            continue
        path.append(part.removesuffix("[]"))
        if part.endswith("[]"):
            path.append(next((at for below, at in _AT.items() if key.startswith(below)), 0))
    return path


def changed(key: str, *, is_set: bool) -> dict[str, Any]:
    """The base with *key*, or without it."""
    document = deepcopy(_BASE)
    for gone in _WITHOUT.get(key, ()):
        _below(document, gone[:-1]).pop(gone[-1], None)
    document["services"]["web"] |= deepcopy(_BESIDE.get(key, {}))
    *above, last = path_of(key)
    parent = _below(document, above)
    if is_set:
        parent[last] = deepcopy(_VALUES[key] if key in _VALUES else parent[last])
    else:
        parent.pop(last, None)
    return document


def _below(value: Any, path: Sequence[str | int]) -> Any:
    for part in path:
        if isinstance(value, dict):
            mapping = cast("dict[str | int, Any]", value)
            if not isinstance(mapping.get(part), dict | list):
                mapping[part] = {}
        value = cast("Any", value)[part]
    return value


def outcome(folder: Path, document: dict[str, Any]) -> tuple[str, Any]:
    """What comes of *document*: the Score and the notes, or what is wrong. It is one line."""
    write(folder, {**_FILES, "compose.yaml": json.dumps(document)})
    try:
        project = read_project([folder / "compose.yaml"], environment={"HOME": "/home/ada"})
        mapped = map_project(project, _REGISTRY)
    except ComposeFileError as error:
        return "refused", error.message
    scores = {name: each.score.model_dump_json() for name, each in mapped.entries.items()}
    return "taken", (scores, mapped.notes)


@pytest.mark.parametrize("key", sorted(DONE))
def test_a_key_that_is_done_changes_what_is_pushed(tmp_path: Path, key: str) -> None:
    said = outcome(tmp_path, changed(key, is_set=True))
    assert (said[0] == "refused") == (key in ONE_VALUE), said
    assert said != outcome(tmp_path, changed(key, is_set=False))
