"""Several compose files, extends, include and profiles: merged as the Compose Specification says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harmony_core.errors import ComposeFileError

from .compose_files import read

BASE = "services:\n  web:\n    image: web\n"


def merged(folder: Path, lower: str, upper: str) -> dict[str, Any]:
    """Return the service web, of which two files say *lower* and *upper*."""
    one, other = (f"services:\n  web: {{image: web, {each}}}\n" for each in (lower, upper))
    found: dict[str, Any] = read(folder, one, other).document["services"]["web"]
    return found


@pytest.mark.parametrize(
    ("key", "lower", "upper", "expected"),
    [
        ("hostname", "hostname: a", "hostname: b", "b"),
        ("environment", "environment: {A: 1, B: 2}", "environment: [B=3]", {"A": "1", "B": "3"}),
        ("labels", "labels: [a=1]", "labels: {a: 2, b: }", {"a": "2", "b": ""}),
        ("sysctls", "sysctls: {a: 1}", "sysctls: [b=2]", {"a": "1", "b": "2"}),
        ("command", "command: [a, b]", "command: c", ["c"]),
        ("entrypoint", "entrypoint: a b", "entrypoint: [c]", ["c"]),
        ("cap_add", "cap_add: [A, B]", "cap_add: [B, C]", ["A", "B", "C"]),
        ("dns", "dns: 1.1.1.1", "dns: [9.9.9.9]", ["1.1.1.1", "9.9.9.9"]),
        ("tmpfs", "tmpfs: /a", "tmpfs: [/b, '/a:size=1m']", ["/a:size=1m", "/b"]),
        ("extra_hosts", "extra_hosts: [a=1.1.1.1]", "extra_hosts: {b: '::1'}", {"a": "1.1.1.1", "b": "::1"}),
        (
            "healthcheck",
            "healthcheck: {test: a, retries: 2}",
            "healthcheck: {test: [CMD, b]}",
            {"test": ["CMD", "b"], "retries": 2},
        ),
        (
            "ulimits",
            "ulimits: {nofile: {soft: 1, hard: 2}, nproc: 3}",
            "ulimits: {nofile: 9}",
            {"nofile": {"soft": 9, "hard": 9}, "nproc": {"soft": 3, "hard": 3}},
        ),
        (
            "logging",
            "logging: {driver: local, options: {max-size: 1m}}",
            "logging: {options: {max-size: 2m}}",
            {"driver": "local", "options": {"max-size": "2m"}},
        ),
        (
            "logging",
            "logging: {driver: local, options: {max-size: 1m}}",
            "logging: {driver: json-file}",
            {"driver": "json-file"},
        ),
        (
            "devices",
            "devices: [/dev/a, /dev/b:/dev/x]",
            "devices: [/dev/c:/dev/x:r]",
            [
                {"source": "/dev/a", "target": "/dev/a", "permissions": "rwm"},
                {"source": "/dev/c", "target": "/dev/x", "permissions": "r"},
            ],
        ),
    ],
)  # fmt: skip
def test_each_key_is_merged_by_its_rule(
    tmp_path: Path, key: str, lower: str, upper: str, expected: object
) -> None:
    assert merged(tmp_path, lower, upper)[key] == expected


def test_ports_are_joined_each_once(tmp_path: Path) -> None:
    found = merged(tmp_path, "ports: ['80:80', '81:81']", "ports: ['80:80', '80:80/udp', '82:80']")
    assert [(each["published"], each["protocol"]) for each in found["ports"]] == [
        ("80", "tcp"),
        ("81", "tcp"),
        ("80", "udp"),
        ("82", "tcp"),
    ]


def test_volumes_are_joined_by_their_targets(tmp_path: Path) -> None:
    found = merged(tmp_path, "volumes: ['/a:/x', '/b:/y']", "volumes: ['/c:/x:ro']")
    assert [(each["source"], each["target"]) for each in found["volumes"]] == [
        ("/c", "/x"),
        ("/b", "/y"),
    ]


def test_a_variable_named_alone_is_that_of_the_environment(tmp_path: Path) -> None:
    one, other = (
        f"services: {{web: {{image: web, environment: {each}}}}}" for each in ("{A: 1}", "[A]")
    )
    document = read(tmp_path, one, other, environment={"A": "given"}).document
    assert document["services"]["web"]["environment"] == {"A": "given"}


def test_reset_takes_away_and_override_replaces(tmp_path: Path) -> None:
    lower = "build: ., ports: ['80:80'], environment: {A: 1, B: 2}, command: x, cap_add: [A]"
    upper = (
        "build: !reset null, ports: !override ['81:81'], environment: {A: !reset null, C: 3}, "
        "command: !reset [], cap_add: !override [B]"
    )
    found = merged(tmp_path, lower, upper)
    assert [each["published"] for each in found["ports"]] == ["81"]
    assert found["environment"] == {"B": "2", "C": "3"}
    assert found["cap_add"] == ["B"]
    assert not {"build", "command"} & {*found}


def test_what_a_dependency_lacks_may_be_in_another_file(tmp_path: Path) -> None:
    one = "services: {db: {image: db}, web: {image: web, depends_on: {db: {condition: service_healthy}}}}"
    project = read(tmp_path, one, "services: {web: {depends_on: {db: {restart: true}}}}")
    found = project.document
    assert found["services"]["web"]["depends_on"] == {
        "db": {"condition": "service_healthy", "required": True}
    }
    (note,) = project.notes
    assert (
        "services.web.depends_on.db.restart has no meaning here: a service is not restarted" in note
    )
    with pytest.raises(ComposeFileError, match=r"depends_on\.db: lacks condition"):
        read(
            tmp_path,
            "services: {db: {image: db}, web: {image: web, depends_on: {db: {restart: true}}}}",
        )


def test_anchors_and_merges_are_written_out(tmp_path: Path) -> None:
    text = """
    x-one: &one {restart: always, labels: {a: 1}}
    x-two: &two {restart: "no", init: true}
    services:
      web:
        <<: [*one, *two]
        image: web
        labels: {b: 2}
      db: {<<: *two, image: db, restart: on-failure}
    """
    services = read(tmp_path, text).document["services"]
    assert services["web"]["restart"] == "always"
    assert services["web"]["init"] is True
    assert services["web"]["labels"] == {"b": "2"}
    assert services["db"]["restart"] == "on-failure"


def test_documents_in_one_file_are_merged(tmp_path: Path) -> None:
    text = "services: {web: {image: web}}\n---\nservices: {web: {init: true}}\n---\n# the end\n"
    web = read(tmp_path, text).document["services"]["web"]
    assert (web["image"], web["init"]) == ("web", True)


def test_a_service_extends_another_of_its_file(tmp_path: Path) -> None:
    text = """
    services:
      base: {image: base, environment: {A: 1}, profiles: [never], cap_add: [A]}
      middle: {extends: base, environment: {B: 2}, profiles: !reset []}
      web: {extends: {service: middle}, image: web, environment: {A: 3}, cap_add: !reset []}
    """
    services = read(tmp_path, text).document["services"]
    assert {*services} == {"middle", "web"}
    assert services["web"]["environment"] == {"A": "3", "B": "2"}
    assert services["web"]["image"] == "web"
    assert "cap_add" not in services["web"]
    assert services["middle"]["image"] == "base"


def test_a_service_extends_one_of_another_file_with_paths_from_there(tmp_path: Path) -> None:
    files = {
        "common/base.yaml": """
        services:
          one: {extends: zero, volumes: ["./data:/data"], env_file: one.env}
          zero: {image: zero, build: {context: 3}}
          other: {is: broken, image: "${NONE?x}"}
        """.replace("build: {context: 3}", "init: true"),
        "common/one.env": "A=1\n",
    }
    text = "services: {web: {extends: {file: common/base.yaml, service: one}, hostname: web}}"
    web = read(tmp_path, text, files=files).document["services"]["web"]
    assert web["volumes"][0]["source"] == f"{tmp_path}/common/data"
    assert web["environment"] == {"A": "1"}
    assert (web["image"], web["init"], web["hostname"]) == ("zero", True, "web")


def test_another_file_is_included(tmp_path: Path) -> None:
    files = {
        "db/compose.yaml": "services: {db: {image: 'db:$TAG', volumes: ['./d:/d', 'vol:/v']}}\n"
        "volumes: {vol: }\n",
        "db/.env": "TAG=7\n",
        "over.yaml": "services: {db: {hostname: over}}",
        "tags.env": "TAG=8\n",
    }
    project = read(
        tmp_path,
        """
        include: [db/compose.yaml]
        services:
          web: {image: web, depends_on: [db]}
          db: {init: true}
        """,
        files=files,
    )
    db = project.document["services"]["db"]
    assert (db["image"], db["init"]) == ("db:7", True)
    assert db["volumes"][0]["source"] == f"{tmp_path}/db/d"
    assert project.document["volumes"] == {"vol": {"name": f"{project.name}_vol"}}
    text = """
    include:
      - {path: [db/compose.yaml, over.yaml], env_file: tags.env, project_directory: here}
    """
    db = read(tmp_path, text, files=files).document["services"]["db"]
    assert (db["image"], db["hostname"]) == ("db:8", "over")
    assert db["volumes"][0]["source"] == f"{tmp_path}/here/d"


def test_a_dollar_sign_stays_one_through_every_file(tmp_path: Path) -> None:
    files = {
        "inner.yaml": "services: {db: {image: db, command: [a, $$A, $$$$B]}}",
        "lower.yaml": "services: {web: {image: web, command: [b, $$A]}}",
    }
    text = "include: [inner.yaml]\nservices: {web: {extends: {file: lower.yaml, service: web}}}\n"
    services = read(tmp_path, text, files=files).document["services"]
    assert services["db"]["command"] == ["a", "$A", "$$B"]
    assert services["web"]["command"] == ["b", "$A"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("include: [compose.yaml]\n", "compose.yaml:1: include[0]: "),
        ("include: [a.yaml]\n", "a.yaml:1: include[0]: "),
        ("include: [none.yaml]\n", "none.yaml is not there"),
        ("include: ['oci://x/y']\n", "is not fetched"),
        ("services: {web: {extends: web}}", "extends itself in the end"),
        ("services: {a: {extends: b}, b: {extends: a}}", "extends itself in the end"),
        ("services: {a: {extends: none}}", "there is no service 'none'"),
        ("services: {a: {extends: {service: x, file: a.yaml}}}", "there is no service 'x'"),
        ("services: {a: {extends: {service: x, file: b.yaml}}}", "b.yaml is not there"),
    ],
)
def test_what_leads_nowhere_or_in_a_circle_is_told(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(ComposeFileError) as raised:
        read(tmp_path, text, files={"a.yaml": "include: [a.yaml]\n"})
    assert told in raised.value.message


PROFILES = """
services:
  web: {image: web}
  debug: {image: debug, profiles: [debug, dev]}
  test: {image: test, profiles: [test], depends_on: [debug]}
"""


def test_only_services_of_chosen_profiles_are_there(tmp_path: Path) -> None:
    assert [*read(tmp_path, PROFILES).document["services"]] == ["web"]
    assert [*read(tmp_path, PROFILES, profiles=["dev"]).document["services"]] == ["web", "debug"]
    assert len(read(tmp_path, PROFILES, profiles=["*"]).document["services"]) == 3
    given = read(tmp_path, PROFILES, environment={"COMPOSE_PROFILES": "dev,other"})
    assert [*given.document["services"]] == ["web", "debug"]


def test_who_depends_on_a_service_of_no_profile_is_told(tmp_path: Path) -> None:
    with pytest.raises(ComposeFileError, match=r"depends_on\.debug: is in no profile"):
        read(tmp_path, PROFILES, profiles=["test"])
    waiting = "{debug: {condition: service_started, required: false}}"
    text = PROFILES.replace("[debug]}", waiting + "}")
    assert read(tmp_path, text, profiles=["test"]).document["services"]["test"]["depends_on"] == {}
