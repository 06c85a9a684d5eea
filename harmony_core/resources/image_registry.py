"""A registry of images as podman on a device is to use it: its mirrors, and by whose word it is believed."""

from __future__ import annotations

import re
import ssl
from typing import Annotated, ClassVar, Self
from urllib.parse import quote

import attrs
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from harmony_core.images import parse_image

from ._base import Privilege, Resource, State

__all__ = [
    "CERTIFICATES_MAX",
    "ImageRegistry",
    "RegistryAt",
    "RegistryMirror",
    "RegistryPlace",
    "certificates_directory",
    "certificates_path",
    "check_certificates",
    "host_of_place",
    "mirrors_path",
]

CERTIFICATES_MAX = 48 * 1024
_CONFIGURATION = "/etc/containers/registries.conf.d"
_CERTIFICATES = "/etc/containers/certs.d"
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+?-----END CERTIFICATE-----")
_PORT_MAX = 65_535
_NAME_MAX = 255
"""Of a file, in bytes."""


def _check_place(place: str) -> str:
    try:
        found = parse_image(f"{place}/x")
    except ValueError:
        raise ValueError(
            "write a registry, with its port and a part of it if need be, in lower-case letters, as in "
            "docker.io or registry.lan:5000/team"
        ) from None
    if found.registry == "localhost":
        raise ValueError(
            "images of localhost come from archives, and of no registry; one that listens on the device has "
            "a port, as in localhost:5000"
        )
    if found.registry == "index.docker.io":
        raise ValueError("podman calls it docker.io; write that")
    if int(found.registry.partition(":")[2] or 0) > _PORT_MAX:
        raise ValueError(f"a port is at most {_PORT_MAX}")
    return place


def check_certificates(text: str) -> str:
    """Return the certificates in *text*, which is PEM, and nothing else of it. Raise ValueError if it has
    none.

    Do not check their dates, or whether they may sign others: podman also accepts a server's own certificate.
    """
    if "PRIVATE KEY" in text:
        raise ValueError(
            "that is a private key, which nobody else is to have; give certificates alone"
        )
    blocks = _PEM.findall(text)
    if not blocks or len(blocks) != text.count("-----BEGIN "):
        raise ValueError(
            "must be certificates in PEM, each from -----BEGIN CERTIFICATE----- to -----END CERTIFICATE-----"
        )
    return "".join(
        _check_certificate(block, number, len(blocks)) for number, block in enumerate(blocks, 1)
    )


def _check_certificate(block: str, number: int, count: int) -> str:
    try:
        content = ssl.PEM_cert_to_DER_cert(block)
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=content)
    except (ssl.SSLError, ValueError):
        raise ValueError(
            f"certificate {number} of {count} cannot be read; give it whole, as the authority has issued it"
        ) from None
    return ssl.DER_cert_to_PEM_cert(content)


RegistryPlace = Annotated[str, Field(max_length=128), AfterValidator(_check_place)]
"""A registry, or a part of it: ``docker.io``, ``registry.lan:5000/team``."""
Certificates = Annotated[
    str, Field(max_length=CERTIFICATES_MAX), AfterValidator(check_certificates)
]


def host_of_place(place: str) -> str:
    """Return the registry of which *place* is a part: ``registry.lan:5000``."""
    return place.partition("/")[0]


def mirrors_path(place: str) -> str:
    """Return the file that tells podman the mirrors of *place*."""
    return f"{_CONFIGURATION}/harmony-{quote(place, safe=':')}.conf"


def certificates_directory(place: str) -> str:
    """Return the directory of the certificates of the registry of *place*."""
    return f"{_CERTIFICATES}/{host_of_place(place)}"


def certificates_path(place: str) -> str:
    """Return the file with the certificates by which podman trusts the registry of *place*."""
    return f"{certificates_directory(place)}/harmony.crt"


class RegistryMirror(BaseModel):
    """Another registry that has the same images."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    location: RegistryPlace
    """Where, as in cache.lan:5000/dockerhub: what follows the registry's own name follows this."""
    insecure: bool = False
    """Whether it is asked by plain HTTP too, and believed whatever its certificate is."""

    def __str__(self) -> str:
        return f"{self.location} (insecure)" if self.insecure else self.location


class ImageRegistry(Resource):
    """podman pulls the images of *host* from *mirrors*, in their order, and then from the registry itself.

    It is written to a file of its own in /etc/containers/registries.conf.d, and in certs.d for *ca*; podman
    is asked afterwards whether it has taken it. Where any other file speaks of *host*, nothing is done.
    """

    resource_type: ClassVar[str] = "registry"

    host: RegistryPlace
    """The registry, or a part of it, as images are named: docker.io, or registry.lan:5000/team."""
    mirrors: Annotated[tuple[RegistryMirror, ...], Field(max_length=16)] = ()
    """Where its images are looked for first."""
    ca: Certificates | None = None
    """Certificates in PEM: by these its own certificate is believed, beside those that the system has."""
    insecure: bool = False
    """Whether it is asked by plain HTTP too, and believed whatever its certificate is."""

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.mirrors and self.ca is None and not self.insecure:
            raise ValueError("give mirrors, ca or insecure; podman uses it already without these")
        if self.ca is not None and self.insecure:
            raise ValueError(
                "insecure believes any certificate, and so ca is in vain; give one of the two"
            )
        if self.ca is not None and "/" in self.host:
            raise ValueError(
                f"ca is of a registry as a whole; give it to a Score of its own, with host: "
                f"{host_of_place(self.host)}"
            )
        if len(mirrors_path(self.host).rpartition("/")[2]) > _NAME_MAX:
            raise ValueError("host has too many parts; name the registry, or less of it")
        places = [self.host, *(each.location for each in self.mirrors)]
        if twice := next((each for each in places if places.count(each) > 1), None):
            raise ValueError(f"mirrors: {twice} is named twice; leave one")
        return self

    @property
    def key(self) -> str:
        return self.host

    @classmethod
    def paths_of(cls, key: str) -> tuple[str, ...]:
        return (mirrors_path(key), certificates_path(key))

    @classmethod
    def units_of(cls, key: str) -> tuple[str, ...]:  # noqa: ARG003 - podman reads its files anew, and goes on
        return ()

    @property
    def privileges(self) -> frozenset[Privilege]:
        return frozenset()

    @property
    def exclusive(self) -> frozenset[str]:
        paths = [mirrors_path(self.host)]
        if self.ca is not None:
            paths.append(certificates_path(self.host))
        return frozenset(f"path:{path}" for path in paths)

    @classmethod
    def survives_reboot(cls, key: str) -> bool:  # noqa: ARG003 - all do
        return True


@attrs.frozen(kw_only=True)
class RegistryAt(State):
    """podman pulls its images so. ``location`` is where the registry itself is, and ``ca`` the hash of the
    certificates that are there for it, or empty."""

    mirrors: tuple[str, ...]
    insecure: bool
    location: str
    blocked: bool
    ca: str

    @property
    def is_ready(self) -> bool:
        return True
