"""What a Score says of a download: an address that reads in one way, a hash, and perhaps a size."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from harmony_core.resources import ASSET_MAX_BYTES, Download, File, first_problem, place_of
from harmony_core.secret_values import secret_word
from harmony_core.wire.assets import find_assets, find_fetched, find_files
from harmony_pi_topology.files.plan import resolve_desired, steps_due
from harmony_pi_topology.posix.safe_write import CopiedContent

SHA256 = "ab" * 32


def refused(url: str) -> str:
    with pytest.raises(ValidationError) as caught:
        Download(url=url, sha256=SHA256)
    return first_problem(caught.value)


@pytest.mark.parametrize(
    ("url", "place", "name"),
    [
        ("https://example.org/a/b.bin", "example.org/a/b.bin", "https://example.org/a/b.bin"),
        ("https://example.org", "example.org", "https://example.org"),
        ("https://example.org:443/x", "example.org/x", "https://example.org:443/x"),
        ("https://10.0.0.1:8443/x", "10.0.0.1:8443/x", "https://10.0.0.1:8443/x"),
        ("https://[fd00::1]:8443/x", "[fd00::1]:8443/x", "https://[fd00::1]:8443/x"),
        ("https://xn--bcher-kva.example/x%20y", "xn--bcher-kva.example/x%20y", None),
        ("https://example.org/x?sig=a%2Fb&[0]=1", "example.org/x", "https://example.org/x?…"),
        ("https://example.org/@scope/a+b~c", "example.org/@scope/a+b~c", None),
    ],
)
def test_an_address_is_told_without_what_may_let_somebody_in(
    url: str, place: str, name: str | None
) -> None:
    download = Download(url=url, sha256=SHA256)
    assert place_of(download.url) == place
    assert download.name == (name or url)
    assert download.summary == f"{download.name}, sha256 abababababab…"


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://example.org/x", "only https is fetched"),
        ("file:///etc/passwd", "only https is fetched"),
        ("HTTPS://example.org/x", "only https is fetched"),
        ("", "only https is fetched"),
        ("https://ada@example.org/x", "a name or password in an address is shown"),
        ("https://ada:word@example.org/x", "push the file as an asset (asset_from)"),
        ("https://example.org/x#part", "remove it"),
        ("https://Example.org/x", "in lower-case letters"),
        ("https://bücher.example/x", "in lower-case letters"),
        ("https:///x", "in lower-case letters"),
        ("https://-a.example/x", "in lower-case letters"),
        ("https://a..example/x", "in lower-case letters"),
        ("https://" + "a." * 127 + "example/x", "in lower-case letters"),
        ("https://example.org:0/x", "a port as a number"),
        ("https://example.org:65536/x", "a port as a number"),
        ("https://example.org:/x", "a port as a number"),
        ("https://example.org:٣/x", "a port as a number"),
        ("https://example.org\\@evil.example/x", "a name or password"),
        ("https://example.org/a b", "such as a space, as %20"),
        ("https://example.org/a\nb", "such as a space, as %20"),
        ("https://example.org/x\n", "such as a space, as %20"),
        ("https://example.org/%zz", "such as a space, as %20"),
        ("https://example.org/ü", "such as a space, as %20"),
        ('https://example.org/x?a="b', "such as a space, as %20"),
        ("https://example.org/a/../b", "without . and .. parts"),
        ("https://example.org/a/%2e%2E/b", "without . and .. parts"),
        ("https://example.org/a%2f..%2fb", "without . and .. parts"),
        ("https://example.org/a%5c..%5cb", "without backslashes"),
        ("https://example.org/" + "a" * 2048, "2048 characters"),
    ],
)
def test_an_address_that_could_be_read_otherwise_is_refused_with_a_remedy(
    url: str, why: str
) -> None:
    said = refused(url)
    assert said.startswith("url: ")
    assert why in said


def test_a_secret_stands_in_no_address() -> None:
    word = secret_word("model", "token", "0123456789abcdef")
    assert "a secret cannot stand in an address" in refused(f"https://example.org/x?key={word}")


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"url": "https://example.org/a b"}, "curl -fsSL 'https://example.org/a b' | sha256sum"),
        ({"url": 7}, "curl -fsSL URL | sha256sum"),
        ({"url": "https://example.org/x", "sha256": "abc"}, "as 64 hexadecimal digits, not 'abc'"),
        ({"url": "https://example.org/x", "sha256": "AB" * 32}, "as 64 hexadecimal digits"),
        (
            {"url": "https://example.org/x", "sha256": SHA256, "size_bytes": ASSET_MAX_BYTES + 1},
            "size_bytes: ",
        ),
        ({"url": "https://example.org/x", "sha256": SHA256, "size_bytes": True}, "size_bytes: "),
        ({"url": "https://example.org/x", "sha256": SHA256, "checksum": "x"}, "checksum: unknown"),
    ],
)
def test_what_is_missing_or_wrong_is_told_with_how_to_get_it(
    given: dict[str, object], why: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        Download.model_validate(given)
    assert why in first_problem(caught.value)


def test_a_size_that_nobody_said_is_not_written() -> None:
    download = Download(url="https://example.org/x", sha256=SHA256)
    assert download.model_dump(mode="json") == {"url": download.url, "sha256": SHA256}
    file = File(path="/srv/x", content=download)
    assert File.model_validate_json(file.model_dump_json()) == file
    assert file.needs_preparing


def test_what_is_kept_for_a_score_is_found_wherever_it_stands() -> None:
    asset = {"sha256": "cd" * 32, "size_bytes": 1, "name": "x", "key": "00" * 32}
    spec = {
        "download": {"url": "https://${labels.mirror}/x", "sha256": SHA256},
        "files": [{"asset": asset}, {"url": "https://e/x", "sha256": "ef" * 32, "size_bytes": 1}],
        "not": [{"url": "x", "sha256": SHA256[:-1]}, {"url": "x", "sha256": 7}, {"url": "x"}],
        "nor": {"url": "x", "sha256": "01" * 32, "more": 1},
    }
    assert [*find_fetched(spec)] == [SHA256, "cd" * 32, "ef" * 32]
    assert [each.sha256 for each in find_assets(spec)] == ["cd" * 32]


def test_what_is_kept_as_a_file_is_told_from_what_an_image_consists_of() -> None:
    asset = {"sha256": "cd" * 32, "size_bytes": 1, "name": "x", "key": "00" * 32}
    layer, named = {**asset, "sha256": "ef" * 32}, {**asset, "sha256": "01" * 32}
    spec = {
        "containers": [{"image": "localhost/x", "image_blobs": [layer, asset]}],
        "files": {"x": {"asset": asset}, "image_blobs": {"asset": named}},
    }
    assert {*find_fetched(spec)} == {asset["sha256"], layer["sha256"], named["sha256"]}
    assert {*find_files(spec)} == {asset["sha256"], named["sha256"]}


@pytest.mark.parametrize("size_bytes", [None, 9])
def test_a_plan_says_from_where_it_would_come_and_no_size_that_nobody_knows(
    size_bytes: int | None,
) -> None:
    download = Download(url="https://example.org/x?key=1", sha256=SHA256, size_bytes=size_bytes)
    file = File(path="/srv/x", content=download)
    content = CopiedContent(
        source=None, size_bytes=size_bytes, sha256=SHA256, summary=download.summary
    )
    desired = resolve_desired(file, content, downloaded=True)
    from_there = "downloaded from https://example.org/x?…"
    assert [str(each) for each in steps_due(None, desired)] == [from_there, "created"]
    found = resolve_desired(File(path="/srv/x", content=b"old"), b"old").state
    steps = [str(each) for each in steps_due(found, desired)]
    assert steps[0] == from_there
    assert steps[1].startswith(f"wrote 3 → {size_bytes or '?'} bytes, sha256 ")
    assert desired.state.size_bytes == size_bytes
    kept = resolve_desired(file, content, downloaded=False)
    assert [str(each) for each in steps_due(None, kept)] == ["created"]
