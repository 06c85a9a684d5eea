"""All that is wrong with compose files is told at once: with file, line, key, and what to write instead."""

from __future__ import annotations

import json
import re
from copy import deepcopy
from pathlib import Path
from random import Random
from typing import Any

import pytest
from ruamel.yaml import YAML

from harmony_control.compose.project import ComposeProject, read_project
from harmony_control.compose.schema import keys_of_schema
from harmony_core.errors import ComposeFileError

from .compose_files import list_places, read, write


def faults_of(folder: Path, text: str, *more: str) -> list[str]:
    with pytest.raises(ComposeFileError) as raised:
        read(folder, text, *more)
    return [line.removeprefix(f"{folder}/") for line in raised.value.message.splitlines()]


def test_everything_is_told_at_once(tmp_path: Path) -> None:
    text = """\
    services:
      web:
        imagee: web
        ports:
          - "80:http"
          - {target: 80, publishd: 8080}
        build: .
        restart: ${RESTART:?say when}
        volumes: [dta:/data]
        healthcheck: {retries: [1]}
    volumes: {data: }
    serivces: {}
    """
    upper = "services:\n  db: {image: db, init: maybe}\n"
    assert "\n".join(faults_of(tmp_path, text, upper)) == EVERYTHING


EVERYTHING = """\
compose.yaml:3: services.web.imagee: is no key of compose files; did you mean 'image'?
compose.yaml:5: services.web.ports[0]: 'http' is no port; write a number, or a range as in 8000-8010
compose.yaml:6: services.web.ports[1].publishd: is no key of compose files; did you mean 'published'?
compose.yaml:7: services.web.build: nothing is built on a device; build the image, push it to a registry, \
name it in image, and remove build
compose.yaml:8: services.web.restart: the variable RESTART is needed: say when; set it in the environment or \
in .env
compose.yaml:9: services.web.volumes[0]: there is no volume 'dta'; did you mean 'data'?
compose.yaml:10: services.web.healthcheck.retries: must be a number or a text; write it so
compose.yaml:12: serivces: is no key of compose files; did you mean 'secrets' or 'services'?
more0.yaml:2: services.db.init: 'maybe' is not true or false; write one of them"""


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: [", ":1: "),
        ("services:\n  web: {image: a}\n  web: {image: b}\n", ":3: services.web: is in line 2, too"),
        ("services:\n  web: {image: a, labels: {1: a}}\n", ":2: services.web.labels: the key 1 is no text"),
        ("services:\n  web: {image: !!binary YQ==}\n", ":2: services.web.image: has the tag tag:yaml.org"),
        ("services:\n  web: {image: !new a}\n", ":2: services.web.image: has the tag !new"),
        ("services:\n  web: {image: a, cpus: .inf}\n", ":2: services.web.cpus: is not a finite number"),
        ("services:\n  web: {image: a, pids_limit: 99999999999999999999}\n", "does not fit into 64 bits"),
        ("services:\n  web: {image: \"\\0\"}\n", "has a NUL byte"),
        ("services:\n  web: {image: \"\\ud800\"}\n", "has half a character"),
        ("services: &a\n  web: *a\n", "an anchor contains itself"),
        ("services:\n  <<: [1]\n", "merges what is no mapping"),
        ("[1]", ":1: is no compose file"),
        ("", ":1: is empty"),
        ("a: " + "[" * 60, ":1: "),
        ("a: " + "[" * 60 + "]" * 60, "nested too deep"),
        ("a: " + "[" * 600 + "]" * 600, "nested too deep"),
        ("services: {web: {image: a}}\n\x07", ":2: "),
    ],
)  # fmt: skip
def test_what_cannot_be_read_as_yaml_has_its_line(tmp_path: Path, text: str, told: str) -> None:
    assert told in "\n".join(faults_of(tmp_path, text))


def test_anchors_cannot_blow_up_a_file(tmp_path: Path) -> None:
    lines = ["x-0: &a0 [xxxxxxxxxx]"]
    lines += [f"x-{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    assert "once its anchors are written out" in faults_of(tmp_path, "\n".join(lines))[0]


def test_files_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    write(tmp_path, {"compose.yaml": "services: {web: {image: web}}"})
    for name, told in (
        ("none.yaml", "is not there"),
        (".", "is a directory"),
        ("\0", "cannot be read"),
    ):
        with pytest.raises(ComposeFileError, match=told):
            read_project([tmp_path / "compose.yaml", tmp_path / name], environment={})
    (tmp_path / "latin.yaml").write_bytes(b"services:\n  web: {image: \xe9}\n")
    with pytest.raises(ComposeFileError, match=r"latin\.yaml:2: is not UTF-8 text"):
        read_project([tmp_path / "latin.yaml"], environment={})
    (tmp_path / "large.yaml").write_bytes(b"#" * (1024 * 1024 + 1))
    with pytest.raises(ComposeFileError, match="is larger than"):
        read_project([tmp_path / "large.yaml"], environment={})
    with pytest.raises(ComposeFileError, match="no compose file is named"):
        read_project([], environment={})
    with pytest.raises(ComposeFileError, match="the project's name 'A B' is none"):
        read_project([tmp_path / "compose.yaml"], environment={}, name="A B")


def test_it_says_where_a_place_of_the_document_stands(tmp_path: Path) -> None:
    text = "services:\n  web:\n    image: web\n    ports:\n      - 80:80\n      - 81-82:81-82\n"
    project = read(tmp_path, text, "services:\n  web:\n    labels: {a: b}\n")
    file = f"{tmp_path}/compose.yaml"
    assert project.where("services", "web", "ports", 2) == f"{file}:6: services.web.ports[2]"
    assert project.where("services", "web", "labels", "a") == (
        f"{tmp_path}/more0.yaml:3: services.web.labels.a"
    )
    assert project.where("services", "web", "nothing", 1) == f"{file}:2: services.web.nothing[1]"
    assert project.where("networks", "default") == f"{file}:1: networks.default"
    by_hand = ComposeProject(name="x", directory=tmp_path, document={}, notes=())
    assert by_hand.where("services", "web") == "services.web"


RICH = """\
name: shop
x-common: &common
  restart: unless-stopped
  logging: {driver: json-file, options: {max-size: "10m"}}
services:
  web:
    <<: *common
    image: nginx:${TAG:-1.29}
    ports: ["8080:80", "127.0.0.1:9000-9002:9000-9002/udp", {target: 443, published: "8443"}]
    environment: {A: 1, B: true, C: null, D: "${A:-x}"}
    env_file: [web.env]
    command: serve --name "my shop" $$HOME
    volumes: [./html:/usr/share/nginx/html:ro, data:/data, {type: tmpfs, target: /tmp, tmpfs: {size: 64m}}]
    depends_on: {db: {condition: service_healthy}, cache: {condition: service_started, required: false}}
    healthcheck: {test: curl -f localhost, interval: 1m30s, retries: 3}
    deploy: {resources: {limits: {cpus: "0.5", memory: 256M}}}
    extra_hosts: ["host.docker.internal:host-gateway"]
    ulimits: {nofile: 65535, nproc: {soft: 1, hard: 2}}
    devices: [/dev/ttyUSB0, "/dev/a:/dev/b:r"]
    networks: {front: {aliases: [shop]}, default: null}
  db:
    <<: *common
    image: postgres:18
    extends: {service: base}
    secrets: [pw]
    tmpfs: /run
  base: {image: base, cap_drop: [ALL], labels: [a=b]}
volumes: {data: {labels: {x: "y"}}}
networks: {front: {internal: true}}
secrets: {pw: {external: true}}
"""
_BITS = [
    *("null", "[]", "{}", "- ", "&a ", "*a", "<<: *common\n", "!reset ", "!override ", "!!binary "),
    *("${", "${X:?no}", "${X:-", "$$", "\t", "\0", "\ud7ff", "0777", "1e999", ".nan", "9" * 20, "'", '"'),
    *("|\n", "%YAML 1.1\n---\n", "---\n", "...\n", "? ", "[[[[", "2024-01-01", "yes", "services:", "-1"),
    *("x-a: 1\n", "~", "C:\\x:/y", "1:2:3:4", "/", "::", "", " ", "\n", "#", "include: [compose.yaml]\n"),
]  # fmt: skip


def _mutate(random: Random, text: str) -> str:
    for _ in range(random.choice([1, 1, 1, 2, 3])):
        lines = text.split("\n")
        at, bit = random.randrange(len(lines)), random.choice(_BITS)
        match random.randrange(6):
            case 0:
                lines[at] = lines[at][: random.randint(0, len(lines[at]))] + bit
            case 1:
                del lines[at]
            case 2:
                lines.insert(at, random.choice(lines))
            case 3:
                lines[at] = f"{lines[at].partition(':')[0]}: {bit}"
            case 4:
                lines[at] = "  " * random.randint(0, 2) + lines[at]
            case _:
                cut = random.randrange(len(text) + 1)
                lines = (text[:cut] + bit + text[cut:]).split("\n")
        text = "\n".join(lines)
    return text


@pytest.mark.parametrize("part", range(3))
def test_a_mutated_file_is_read_or_refused_with_its_lines(tmp_path: Path, part: int) -> None:
    read_count = 0
    for number in range(100):
        text = _mutate(Random(1000 * part + number), RICH)
        write(tmp_path, {"compose.yaml": text, "web.env": "X=1\n"})
        try:
            read_project([tmp_path / "compose.yaml"], environment={"HOME": "/home/ada"})
            read_count += 1
        except ComposeFileError as error:
            for line in error.message.splitlines():
                assert re.match(
                    rf"{tmp_path}/(compose\.yaml|web\.env):\d+: |and \d+ more$", line
                ), line
    assert 0 < read_count < 100  # both ends are met


_VALUES: list[Any] = [
    *(None, True, 0, -1, 3.5, 80, "", "x", "80", "a=b", "1m", "/a:/b", "db", "CMD", "~", "a:b:c:d", "$"),
    *("service:db", "1-5", "host", "é", [], {}, ["a"], [None], [[1]], [{}], {"a": "b"}, {"1": None}),
    *({"1": "x"}, {"a": None}, {"a": []}, [{"target": "/x"}], [{"type": [1], "target": "/x"}], {"x-a": 1}),
]  # fmt: skip


@pytest.mark.parametrize("part", range(2))
def test_any_value_anywhere_is_read_or_refused_with_its_lines(tmp_path: Path, part: int) -> None:
    yaml: Any = YAML(typ="safe", pure=True)
    rich = yaml.load(RICH)
    for number in range(60):
        random = Random(1000 * part + number)
        document = deepcopy(rich)
        for _ in range(random.randint(1, 3)):
            parent, key = random.choice(list_places(document))
            value = random.choice(_VALUES)
            if isinstance(parent, dict) and random.random() < 0.3:
                key = random.choice(_KEYS)
            parent[key] = value
        write(tmp_path, {"compose.yaml": json.dumps(document, indent=1), "web.env": "X=1\n"})
        try:
            read_project([tmp_path / "compose.yaml"], environment={"HOME": "/home/ada"})
        except ComposeFileError as error:
            for line in error.message.splitlines():
                assert re.match(
                    rf"{tmp_path}/(compose\.yaml|web\.env):\d+: |and \d+ more$", line
                ), line


_KEYS = sorted({"1", "a b", *(key.rpartition(".")[2] for key in keys_of_schema())})


def test_a_name_that_no_file_can_have_is_told_with_its_place(tmp_path: Path) -> None:
    file = f"{{path: {'n' * 300}, required: false}}"
    text = f"services: {{web: {{image: web, env_file: [{file}]}}}}"
    with pytest.raises(ComposeFileError, match=r"compose\.yaml:1: services\.web\.env_file\[0\]: "):
        read(tmp_path, text)


def test_a_file_that_nobody_may_look_for_is_told_with_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    write(tmp_path, {"inner/a.yaml": "services: {db: {image: db}}"})
    monkeypatch.setattr(Path, "exists", refuse)
    with pytest.raises(ComposeFileError) as raised:
        read(tmp_path, "include: [inner/a.yaml]")
    told = raised.value.message.split("\n")
    assert [each for each in told if ":1: " in each and "/.env cannot be read: Permission" in each]
    assert [each for each in told if "include[0]: " in each and "inner/.env cannot" in each]
