"""A project of several files, one of which is wrong: read and mapped, or refused with file, line and key."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from random import Random
from typing import Any

import pytest
from ruamel.yaml import YAML

from harmony_control.compose.mapping import map_project
from harmony_control.compose.project import read_project
from harmony_control.compose.schema import keys_of_schema
from harmony_core.errors import ComposeFileError
from harmony_core.plugins import Registry
from harmony_scores import ComposeScore
from tests.control.compose_files import list_places, write
from tests.soak import runs

_REGISTRY = Registry([ComposeScore])
FILES = {
    "compose.yaml": """\
name: shop
include: [{path: other/compose.yaml, env_file: other/other.env}]
services:
  web:
    extends: {file: base.yaml, service: base}
    image: nginx:1.29
    ports: ["8080:80", "127.0.0.1:9000-9002:9000-9002/udp", {target: 443, published: "8443"}]
    environment: {A: 1, B: true}
    env_file: [web.env]
    command: serve --now
    volumes: [./app.conf:/etc/app.conf:ro, data:/data, /a:/a, {type: tmpfs, target: /t, tmpfs: {size: 1m}}]
    depends_on: {db: {condition: service_healthy}, cache: {condition: service_started, required: false}}
    configs: [{source: motd, target: /etc/motd, mode: 0400}]
    secrets: [pw]
    networks: {front: {aliases: [shop], ipv4_address: 10.9.0.9}}
    deploy: {resources: {limits: {cpus: "0.5", memory: 256M}}, restart_policy: {condition: any}}
    devices: [/dev/ttyUSB0, "/dev/a:/dev/b:r"]
  db:
    image: postgres:18
    healthcheck: {test: [CMD, pg_isready], interval: 10s, retries: 3}
    tmpfs: /run
    labels: {a: "1"}
    user: "70"
volumes: {data: {labels: {x: "y"}}}
networks: {front: {internal: true, ipam: {config: [{subnet: 10.9.0.0/24}]}}}
configs: {motd: {content: hello}}
secrets: {pw: {external: true}}
""",
    "more.yaml": """\
services:
  web: {ports: !override ["81:80"], labels: [b=c], sysctls: {net.core.somaxconn: "9"}, cap_add: [NET_ADMIN]}
  db: {hostname: db, ulimits: {nofile: {soft: 1, hard: 2}}, logging: {driver: journald, options: {tag: db}}}
""",
    "base.yaml": """\
services:
  base: {image: base, init: true, cap_drop: [ALL], extra_hosts: ["a:1.1.1.1"], stop_grace_period: 10s}
""",
    "other/compose.yaml": """\
services:
  cache: {image: "redis:${TAG}", restart: unless-stopped, mem_limit: 64m, volumes: ["./conf:/conf"]}
""",
}
_BESIDE = {"web.env": "X=1\n", "app.conf": "x\n", "other/other.env": "TAG=8\n"}
_VALUES: list[Any] = [
    *(None, True, 0, -1, 3.5, 80, "", "x", "80", "a=b", "1m", "/a:/b", "db", "CMD", "~", "a:b:c:d", "$"),
    *("service:db", "1-5", "host", "é", [], {}, ["a"], [None], [[1]], [{}], {"a": "b"}, {"1": None}),
    *(10**18, 1e300, "0", "/", "../x", "./app.conf", "x" * 5000, "${secret.a}", "{{.Name}}", "/dev/a:/b"),
    *({"1": "x"}, {"a": None}, {"a": []}, [{"target": "/x"}], [{"type": [1], "target": "/x"}], {"x-a": 1}),
]  # fmt: skip
_KEYS = sorted(
    {"1", "a b", *(key.rpartition(".")[2].removesuffix("[]") for key in keys_of_schema())}
)
_BITS = [
    *("null", "[]", "{}", "- ", "&a ", "*a", "!reset ", "${", "${X:?no}", "\t", "'", "0777", ".nan", "-1"),
    *("9" * 20, "yes", "C:\\x:/y", "1:2:3:4", "/", " ", "\n", "#", "services:", "x-a: 1\n", "]", ":"),
]  # fmt: skip
_KEY = re.compile(
    r"(name|include|services|networks|volumes|configs|secrets)\b[^ ]*: |[^ .]+: is no key "
)


def with_another_value(random: Random, name: str) -> str:
    """One of `FILES`, in which one value is another, or stands under another key."""
    yaml: Any = YAML(typ="safe", pure=True)
    document = yaml.load(FILES[name].replace("!override ", ""))
    parent, key = random.choice(list_places(document))
    if isinstance(parent, dict) and random.random() < 0.4:
        key = random.choice(_KEYS)
    parent[key] = deepcopy(random.choice(_VALUES))
    return json.dumps(document, indent=1)


def with_another_text(random: Random, name: str) -> str:
    """One of `FILES`, in which a few characters are others."""
    text = FILES[name]
    at = random.randrange(len(text))
    return text[:at] + random.choice(_BITS) + text[at + random.choice([0, 0, 1, 5]) :]


def outcome(folder: Path, name: str, text: str) -> list[str]:
    """What is told of the project in which the file *name* has *text*; nothing where it is taken."""
    write(folder, {**FILES, **_BESIDE, name: text})
    files = [folder / "compose.yaml", folder / "more.yaml"]
    try:
        project = read_project(files, environment={"HOME": "/home/ada"})
        (entry,) = map_project(project, _REGISTRY).entries.values()
    except ComposeFileError as error:
        return error.message.splitlines()
    assert ComposeScore.model_validate_json(entry.score.model_dump_json()) == entry.score
    return []


def test_the_project_itself_is_taken(tmp_path: Path) -> None:
    assert outcome(tmp_path, "more.yaml", FILES["more.yaml"]) == []


def refusals(folder: Path, name: str, change: Callable[[Random, str], str]) -> Iterator[str]:
    """Yield what is told of `FILES` with *name* changed, many times over; of some of them, something is."""
    refused, count = 0, runs(200)
    for number in range(count):
        told = outcome(folder, name, change(Random(f"{name}{number}"), name))
        refused += bool(told)
        yield from told
    assert refused > count // 4


@pytest.mark.soak
@pytest.mark.parametrize("name", FILES)
def test_another_value_in_one_of_the_files_is_taken_or_refused_with_file_line_and_key(
    tmp_path: Path, name: str
) -> None:
    for line in refusals(tmp_path, name, with_another_value):
        at = re.match(rf"{tmp_path}/({'|'.join(FILES)}):\d+: (.*)", line)
        assert at is not None, line
        assert _KEY.match(at[2]), line


@pytest.mark.soak
@pytest.mark.parametrize("name", FILES)
def test_another_text_in_one_of_the_files_is_taken_or_refused_with_file_and_line(
    tmp_path: Path, name: str
) -> None:
    at = rf"{tmp_path}/({'|'.join([*FILES, *_BESIDE])}):\d+: |and \d+ more$"
    for line in refusals(tmp_path, name, with_another_text):
        assert re.match(at, line), line
