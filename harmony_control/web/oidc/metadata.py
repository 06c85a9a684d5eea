"""What a provider says of itself in its discovery document, as far as we need it."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict, model_validator

from harmony_control.settings_file import Url

__all__ = ["Metadata"]


class Metadata(BaseModel):
    """Where a provider is asked what. A provider of https has nothing in clear."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    issuer: Url
    authorization_endpoint: Url
    token_endpoint: Url
    jwks_uri: Url
    userinfo_endpoint: Url | None = None
    token_endpoint_auth_methods_supported: tuple[str, ...] = ("client_secret_basic",)
    authorization_response_iss_parameter_supported: bool = False

    @model_validator(mode="after")
    def _be_safe(self) -> Self:
        if self.issuer.startswith("https:"):
            addresses = (
                self.authorization_endpoint,
                self.token_endpoint,
                self.jwks_uri,
                self.userinfo_endpoint or self.issuer,
            )
            if clear := [each for each in addresses if not each.startswith("https:")]:
                raise ValueError(f"{clear[0]} is in clear, and the issuer is https")
        return self
