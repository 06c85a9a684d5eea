"""RegistryScore: where the images of one registry are pulled from, and by whose word it is believed."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from harmony_core import (
    HasRegistries,
    ImageRegistry,
    Inventory,
    Outcome,
    RegistryMirror,
    Score,
    outcome_of,
)
from harmony_core.content import Text
from harmony_core.resources import RegistryPlace
from harmony_core.resources.image_registry import CERTIFICATES_MAX, check_certificates

from ._whole import refused_as_fields

__all__ = ["RegistryScore"]


def _from_place(given: object) -> object:
    return {"location": given} if isinstance(given, str) else given


Mirror = Annotated[
    RegistryMirror,
    BeforeValidator(_from_place, json_schema_input_type=RegistryPlace | RegistryMirror),
]
"""A mirror, or only where it is."""


class RegistryScore(Score[HasRegistries]):
    """podman pulls the images of this registry from its ``mirrors`` first, and believes it by its ``ca``.

    Images keep their names. Each mirror is tried in its order, and then the registry itself; a mirror with a
    certificate of a private authority has a RegistryScore of its own, with ``ca``. podman is asked whether it
    has taken it, and pulls so at once, without a restart. Where another file of podman's speaks of the
    registry, it is a failure that names the file. When the Score goes, podman pulls as before.
    """

    host: RegistryPlace = Field(
        description="The registry as images are named after it, or a part of it: docker.io, "
        "registry.lan:5000, ghcr.io/acme."
    )
    mirrors: Annotated[tuple[Mirror, ...], Field(max_length=16)] = Field(
        default=(),
        description="Other registries with the same images, as in cache.lan:5000/dockerhub: tried in this "
        "order. One without TLS is {location: cache.lan:5000, insecure: true}.",
    )
    ca: (
        Annotated[Text, Field(max_length=CERTIFICATES_MAX), AfterValidator(check_certificates)]
        | None
    ) = Field(
        default=None,
        description="Certificates in PEM, of authorities or of the registry itself, by which it is "
        "believed, beside those that the device has.",
    )
    insecure: bool = Field(
        default=False,
        description="Whether the registry itself is asked by plain HTTP too, and believed whatever its "
        "certificate is: then anybody on the way can give the device another image, unless that is named by "
        "its digest.",
    )

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        with refused_as_fields():
            self._registry()
        return self

    async def interpret(self, inventory: Inventory, topology: HasRegistries) -> Outcome:  # noqa: ARG002
        return outcome_of(await topology.registries.ensure(self._registry()))

    def _registry(self) -> ImageRegistry:
        return ImageRegistry(**{name: getattr(self, name) for name in type(self).model_fields})
