"""An image in an archive, as `podman save --format oci-archive` writes it: read once, nothing unpacked.

    oci-layout, index.json -> one manifest, or one index of several platforms -> configuration and layers
    blobs/sha256/<hash>    -> each hashed here -> an asset that is a part of this file

Members are looked up by these names alone, and only as plain files: links, and whatever else is in there,
lead nowhere. The digest of what index.json names pins the image; everything else follows from it by hash.
Reference: https://github.com/opencontainers/image-spec/blob/main/image-layout.md
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

import attrs

from harmony_core.errors import ScoreFileError
from harmony_core.images import names_elsewhere, parse_image
from harmony_core.resources import IMAGE_BLOB_MAX_BYTES, ImageBlob

from .local import note_part, open_regular, to_name

__all__ = ["PLATFORMS_READ", "ImageArchive", "read_image"]

_DOCUMENT_MAX_BYTES = 4 * 1024 * 1024
_MEMBERS_MOST = 10_000
_MANIFESTS_MOST = 32
_TOLD_MOST = 5
_NAME_TOLD = 100
_BLOB = "blobs/sha256/"
_PLATFORM = re.compile(r"[a-z0-9]{1,20}/[a-z0-9_]{1,20}\Z")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")
_INDEXES = frozenset(
    {
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
    }
)
_MANIFESTS = frozenset(
    {
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    }
)
_UNPACKED_BY = {
    b"\x1f\x8b": "gunzip",
    b"\x28\xb5\x2f\xfd": "unzstd",
    b"BZh": "bunzip2",
    b"\xfd7zXZ": "unxz",
}
"""How a file begins that is compressed, and by what it is unpacked."""
_NAMES = ("io.containerd.image.name", "org.opencontainers.image.ref.name")
"""Where an archive says what its image is called: containerd's whole name, and what others have."""
_REMEDY = "podman save --format oci-archive -o FILE IMAGE, or docker save of Docker 25 or newer"
_PLATFORMS: dict[str, frozenset[str]] = {}
PLATFORMS_READ: Mapping[str, frozenset[str]] = _PLATFORMS
"""For what the images are made of which this process has read archives, by digest."""


@attrs.frozen(kw_only=True)
class ImageArchive:
    """An image in an archive, for the fields `image` and `image_blobs` of a Score."""

    image: str
    """Its name on devices, by digest: ``localhost/app:1@sha256:…``."""
    blobs: tuple[ImageBlob, ...]
    """What it consists of, its manifest first."""
    platforms: frozenset[str]
    """For what it is made, as in ``linux/arm64``."""


def read_image(path: Path | str) -> ImageArchive:
    """Return the image in the archive at *path*, for `ContainerScore.image` and `ContainerScore.image_blobs`.

    Its parts are read again when the Score is pushed: until then, in this process, the file must not change.
    Raise `ScoreFileError` for what is no archive of one whole image.
    """
    path = Path(path)
    _refuse_directory(path)
    with open_regular(path, most_bytes=None) as file:
        image = _Reader(path, file, _list_members(path, file)).read()
    _PLATFORMS[parse_image(image.image).digest or ""] = image.platforms
    return image


def _refuse_directory(path: Path) -> None:
    if (path / "oci-layout").exists():
        raise ScoreFileError(
            f"{path} is a directory; pack it, and name that: tar -cf {path.name}.tar -C {path} ."
        )
    if path.is_dir():
        raise ScoreFileError(f"{path} is a directory; name an archive: {_REMEDY}")


@attrs.frozen
class _Member:
    """Where in the archive a file is."""

    begin: int
    size_bytes: int


def _list_members(path: Path, file: BinaryIO) -> dict[str, _Member]:
    """Return the plain files of the archive, by name: links and devices are ignored."""
    import tarfile  # most pushes read none

    begin = file.read(6)
    for magic, program in _UNPACKED_BY.items():
        if begin.startswith(magic):
            raise ScoreFileError(
                f"{path} is compressed; name the archive itself, unpacked: {program} {path}"
            )
    file.seek(0)
    found: dict[str, _Member] = {}
    try:
        # Without a stream in between, so that what is skipped is not read.
        with tarfile.open(fileobj=file, mode="r:") as archive:
            for count, each in enumerate(archive, start=1):
                if count > _MEMBERS_MOST:
                    raise ScoreFileError(
                        f"{path} has more than {_MEMBERS_MOST} files; save one image: {_REMEDY}"
                    )
                name = each.name.removeprefix("./")
                if not each.isreg() or each.issparse():
                    continue
                if name in found:
                    raise ScoreFileError(
                        f"{path} has two files {name[:_NAME_TOLD]!r}; save the image anew"
                    )
                found[name] = _Member(each.offset_data, each.size)
    except (tarfile.TarError, ValueError, OverflowError, RecursionError) as error:
        raise ScoreFileError(f"{path} is no archive of an image: {error}; {_REMEDY}") from error
    return found


@attrs.define
class _Reader:
    """Reads the image in one archive, which is open."""

    path: Path
    file: BinaryIO
    members: Mapping[str, _Member]
    blobs: dict[str, ImageBlob] = attrs.Factory(dict[str, ImageBlob])
    """By digest, in the order in which they were met."""
    platforms: set[str] = attrs.Factory(set[str])
    name: str = ""

    def read(self) -> ImageArchive:
        entry = self._choose_entry()
        repository, tag = _name_image(_find_name(entry), self.path.stem)
        self.name = f"{repository}{tag}"
        top = self._read_document(entry, "the image's manifest")
        if _is_index(top, entry):
            self._take_index(top)
        else:
            self._take_manifest(top)
        return ImageArchive(
            image=f"localhost/{repository}{tag}@{_digest_of(entry)}",
            blobs=tuple(self.blobs.values()),
            platforms=frozenset(self.platforms),
        )

    def _choose_entry(self) -> Mapping[str, Any]:
        """Return the entry of index.json for the one image."""
        if "index.json" not in self.members and "manifest.json" in self.members:
            raise self._refuse(
                "is in Docker's older format, which has no digests, and which podman save without --format "
                f"writes, too; save it anew: {_REMEDY}; or make another of it: skopeo copy "
                f"docker-archive:{self.path} oci-archive:FILE:NAME:TAG"
            )
        if "index.json" not in self.members or "oci-layout" not in self.members:
            raise self._refuse(f"is no archive of an image, since it has no index.json; {_REMEDY}")
        version = self._parse("oci-layout").get("imageLayoutVersion")
        if not isinstance(version, str) or not version.startswith("1."):
            raise self._refuse(
                f"has the layout {repr(version)[:_NAME_TOLD]}, and 1.0.0 is known; {_REMEDY}"
            )
        listed = self._parse("index.json", may_name_elsewhere=False).get("manifests")
        entries: dict[str, Mapping[str, Any]] = {}
        for each in _list_of(listed):
            entries.setdefault(_digest_of(each), each)
        if not entries:
            raise self._refuse(f"has no image in it; {_REMEDY}")
        if len(entries) > 1:
            names = [
                (_find_name(each) or digest[:15])[:_NAME_TOLD] for digest, each in entries.items()
            ]
            more = "" if len(names) <= _TOLD_MOST else f" and {len(names) - _TOLD_MOST} more"
            raise self._refuse(
                f"has several images: {', '.join(map(repr, names[:_TOLD_MOST]))}{more}; save one alone"
            )
        return next(iter(entries.values()))

    def _take_index(self, index: Mapping[str, Any]) -> None:
        """Take the index with the images of all platforms: the device's podman decides which of them fits."""
        listed = _list_of(index.get("manifests"))
        if len(listed) > _MANIFESTS_MOST:
            raise self._refuse(f"is for more than {_MANIFESTS_MOST} platforms; save it for fewer")
        for each in listed:
            # Docker saves the platforms that it has with the index of all, and what attests them as of none.
            if _is_runnable(each) and f"{_BLOB}{_digest_of(each)[7:]}" in self.members:
                manifest = self._read_document(each, "a platform's manifest")
                if _is_index(manifest, each):
                    raise self._refuse("has an index within an index; save the image alone")
                self._take_manifest(manifest)
        if not self.platforms:
            raise self._refuse(
                "has an index, and the image of none of its platforms; pull it, and save it again"
            )

    def _take_manifest(self, manifest: Mapping[str, Any]) -> None:
        config = self._parse(self._place(manifest.get("config"), "the configuration"))
        layers = manifest.get("layers")
        if not isinstance(layers, list) or not layers:
            raise self._refuse("has an image without layers, which is none that runs; save another")
        listed = cast("list[object]", layers)
        for number, each in enumerate(listed, start=1):
            self._take(each, f"layer {number} of {len(listed)}")
        of = f"{config.get('os')}/{config.get('architecture')}"
        self.platforms.add(of if _PLATFORM.match(of) else "unknown")

    def _read_document(self, descriptor: object, what: str) -> Mapping[str, Any]:
        """Take a blob that names others, and return its content."""
        return self._parse(self._place(descriptor, what), may_name_elsewhere=False)

    def _place(self, descriptor: object, what: str) -> str:
        """Take a blob, and return which file of the archive it is."""
        return f"{_BLOB}{self._take(descriptor, what).sha256}"

    def _take(self, descriptor: object, what: str) -> ImageBlob:
        """Add the blob that *descriptor* names, once its hash and its size are what that says."""
        digest = _digest_of(descriptor)
        if not digest:
            raise self._refuse(f"names {what} by no SHA-256; save the image anew")
        if (known := self.blobs.get(digest)) is not None:
            return known
        member = self.members.get(f"{_BLOB}{digest[7:]}")
        if member is None:
            raise self._refuse(
                f"is not whole: {what}, {digest}, is not in it; save the image anew, whole"
            )
        said = cast("Mapping[str, Any]", descriptor).get("size")
        if member.size_bytes != said:
            raise self._refuse(
                f"is damaged: {what} has {member.size_bytes} bytes instead of {repr(said)[:_NAME_TOLD]}; "
                "save the image anew"
            )
        if not 0 < member.size_bytes <= IMAGE_BLOB_MAX_BYTES:
            raise self._refuse(
                f"has {what} of {member.size_bytes} bytes, and it may have 1 to {IMAGE_BLOB_MAX_BYTES}; have "
                "the image in more layers, or in a registry"
            )
        if note_part(self.path, self.file, member.begin, member.size_bytes) != digest[7:]:
            raise self._refuse(f"is damaged: {what} is not {digest}; save the image anew")
        blob = self.blobs[digest] = ImageBlob(
            sha256=digest[7:],
            size_bytes=member.size_bytes,
            name=to_name(f"{self.name}: {what}"),
        )
        return blob

    def _parse(self, name: str, *, may_name_elsewhere: bool = True) -> Mapping[str, Any]:
        member = self.members[name]
        if member.size_bytes > _DOCUMENT_MAX_BYTES:
            raise self._refuse(
                f"has a {name} of {member.size_bytes} bytes, which is no image's; {_REMEDY}"
            )
        self.file.seek(member.begin)
        try:
            content = self.file.read(member.size_bytes)
            value: Any = json.loads(content)
            elsewhere = not may_name_elsewhere and names_elsewhere(content)
        except (ValueError, RecursionError) as error:
            raise self._refuse(f"has a {name} that is no JSON; save the image anew") from error
        if elsewhere:
            raise self._refuse(
                f"has a {name} with urls: parts of its image are to be fetched from elsewhere, which no "
                "device does; save the image anew, whole"
            )
        if not isinstance(value, dict):
            raise self._refuse(f"has a {name} that is none of an image; save the image anew")
        return cast("Mapping[str, Any]", value)

    def _refuse(self, why: str) -> ScoreFileError:
        return ScoreFileError(f"{self.path} {why}")


def _list_of(value: object) -> list[Mapping[str, Any]]:
    """Return the objects in a list; nothing where *value* is none."""
    items = cast("list[object]", value) if isinstance(value, list) else []
    return [cast("Mapping[str, Any]", each) for each in items if isinstance(each, dict)]


def _digest_of(descriptor: object) -> str:
    """Return the digest in *descriptor*; empty where it has none that is a SHA-256."""
    value = (
        cast("Mapping[str, Any]", descriptor).get("digest")
        if isinstance(descriptor, dict)
        else None
    )
    return value if isinstance(value, str) and _DIGEST.match(value) else ""


def _is_index(document: Mapping[str, Any], descriptor: Mapping[str, Any]) -> bool:
    said = document.get("mediaType") or descriptor.get("mediaType")
    if not isinstance(said, str | None):
        return "manifests" in document
    return said in _INDEXES or (said not in _MANIFESTS and "manifests" in document)


def _is_runnable(descriptor: Mapping[str, Any]) -> bool:
    platform = descriptor.get("platform")
    return (
        not isinstance(platform, dict) or cast("Mapping[str, Any]", platform).get("os") != "unknown"
    )


def _find_name(entry: Mapping[str, Any]) -> str:
    """Return the name of the image in the archive; empty where it has none."""
    said = entry.get("annotations")
    annotations = cast("dict[str, object]", said) if isinstance(said, dict) else {}
    named = [annotations.get(each) for each in _NAMES]
    return next((each for each in named if isinstance(each, str) and each), "")


def _name_image(called: str, stem: str) -> tuple[str, str]:
    """Return the name that devices use for an image with this name in its archive, a file named *stem*: the
    repository, and the tag with its colon.

    Leave out its registry, since it does not come from there. A single word is a tag.
    """
    if "/" not in called and ":" not in called:
        called = f"{stem}:{called}" if called else stem
    for each in (
        called,
        f"localhost/{called}",
        f"localhost/{called.lower()}",
        f"localhost/{stem.lower()}",
    ):
        try:
            image = parse_image(each)
        except ValueError:
            continue
        return image.repository.rpartition("/")[2], f":{image.tag}" if image.tag else ""
    return "image", ""
