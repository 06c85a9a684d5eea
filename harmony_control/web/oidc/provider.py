"""The provider over HTTP: where it is asked what, and what it says of who comes back with a code.

Nothing is kept between two sign-ins: a key that the provider has changed counts from the next one on.
Whatever it answers, or does not, is a `ProviderFault`.
"""

# Authlib is half typed.
# pyright: reportUnknownVariableType=false

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Mapping
from typing import Any, cast
from urllib.parse import parse_qsl, quote

import httpx
from authlib.oauth2.rfc6749.parameters import prepare_grant_uri, prepare_token_request
from authlib.oauth2.rfc7636 import create_s256_code_challenge
from pydantic import ValidationError

from harmony_control.settings_file import make_context
from harmony_core.errors import WireError
from harmony_core.resources import first_problem
from harmony_core.visible import cut, visible
from harmony_core.wire import strict_json

from .begun import Begun
from .faults import ProviderFault
from .id_token import verify_id_token
from .identity import find_claim
from .metadata import Metadata
from .settings import OidcSettings, read_client_secret

__all__ = ["Provider"]

ANSWER_WITHIN_S = 10.0
DOCUMENT_MOST_BYTES = 256 * 1024
_HEADERS = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "harmony"}
_ERROR = re.compile(r"[a-z_]{1,64}")
_REFUSALS: Mapping[str, str] = {
    "invalid_client": "compare client_id, and the secret in client_secret_file, with what it has",
    "invalid_grant": "sign in again; the code that it gave has expired or was used",
    "unauthorized_client": "allow the authorization code flow to this client there",
}


class Provider:
    """One provider, as *settings* names it."""

    def __init__(self, settings: OidcSettings) -> None:
        self._settings = settings
        self._context: ssl.SSLContext | None = None

    async def discover(self) -> Metadata:
        """Return where it is asked what, as it says now. `ProviderFault`."""
        url = f"{self._settings.issuer.rstrip('/')}/.well-known/openid-configuration"
        found = await self._ask("GET", url)
        try:
            metadata = Metadata.model_validate(found)
        except ValidationError as error:
            raise ProviderFault(
                f"what it says of itself cannot be used: {first_problem(error)}"
            ) from error
        if metadata.issuer != self._settings.issuer:
            raise ProviderFault(
                f"it calls itself {cut(visible(metadata.issuer), 200)}; write issuer so in web-oidc.toml, if "
                "that is who is meant"
            )
        return metadata

    def address_of(self, begun: Begun) -> str:
        """Return where the browser is sent, to sign in there."""
        challenge = create_s256_code_challenge(begun.verifier)  # type: ignore[no-untyped-call] # no stub
        address: object = prepare_grant_uri(
            begun.metadata.authorization_endpoint,
            self._settings.client_id,
            "code",
            redirect_uri=self._settings.callback,
            scope=self._settings.scope,
            state=begun.state,
            nonce=begun.nonce,
            code_challenge=cast("str", challenge),
            code_challenge_method="S256",
        )
        assert isinstance(address, str)
        return address

    async def redeem(self, begun: Begun, code: str) -> dict[str, Any]:
        """Return the claims about who has brought *code*, verified. `ProviderFault`, `ConfigError`."""
        metadata = begun.metadata
        tokens = await self._exchange(begun, code)
        match tokens:
            case {"id_token": str(id_token), "access_token": str(access_token)}:
                keys = await self._ask("GET", metadata.jwks_uri)
            case _:
                raise ProviderFault(
                    "it gives no ID token; the client must be one of OpenID Connect there"
                )
        claims = verify_id_token(
            id_token,
            keys,
            issuer=metadata.issuer,
            client_id=self._settings.client_id,
            nonce=begun.nonce,
            access_token=access_token,
        )
        is_named = self._settings.username_claim in claims
        has_groups = find_claim(claims, self._settings.groups_claim) is not None
        if (is_named and has_groups) or metadata.userinfo_endpoint is None:
            return claims
        said = await self._ask(
            "GET", metadata.userinfo_endpoint, {"Authorization": f"Bearer {access_token}"}
        )
        # Of somebody else it says nothing about them.
        if said.get("sub") != claims["sub"]:
            raise ProviderFault("its userinfo is about somebody else than its ID token")
        return {**said, **claims}

    async def _exchange(self, begun: Begun, code: str) -> dict[str, Any]:
        """Return what it gives for *code*."""
        settings, metadata = self._settings, begun.metadata
        secret = await asyncio.to_thread(read_client_secret, settings)
        fields = dict(
            parse_qsl(
                prepare_token_request(
                    "authorization_code",
                    redirect_uri=settings.callback,
                    code=code,
                    code_verifier=begun.verifier,
                )
            )
        )
        ways = metadata.token_endpoint_auth_methods_supported
        if "client_secret_basic" in ways:
            # As RFC 6749 has it: each is encoded before the two are joined.
            basic = httpx.BasicAuth(quote(settings.client_id, safe=""), quote(secret, safe=""))
            return await self._ask("POST", metadata.token_endpoint, data=fields, auth=basic)
        if "client_secret_post" in ways:
            fields |= {"client_id": settings.client_id, "client_secret": secret}
            return await self._ask("POST", metadata.token_endpoint, data=fields)
        raise ProviderFault(
            "it takes a client's secret neither by client_secret_basic nor by client_secret_post; allow one "
            "of them there"
        )

    async def _ask(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        *,
        data: Mapping[str, str] | None = None,
        auth: httpx.Auth | None = None,
    ) -> dict[str, Any]:
        """Return the JSON object that it answers with."""
        if self._context is None:
            self._context = await asyncio.to_thread(make_context, self._settings.ca_file)
        body = bytearray()
        try:
            async with (
                asyncio.timeout(ANSWER_WITHIN_S),
                httpx.AsyncClient(
                    verify=self._context, timeout=ANSWER_WITHIN_S, trust_env=False, auth=auth
                ) as client,
                client.stream(
                    method, url, headers={**_HEADERS, **(headers or {})}, data=data
                ) as reply,
            ):
                async for part in reply.aiter_raw():
                    body += part
                    if len(body) > DOCUMENT_MOST_BYTES:
                        raise ProviderFault(
                            f"{url} answers with more than {DOCUMENT_MOST_BYTES} bytes"
                        )
        except TimeoutError:
            raise ProviderFault(f"{url} did not answer in {ANSWER_WITHIN_S:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            raise ProviderFault(
                f"{url} cannot be reached: {cut(visible(str(error)), 200) or type(error).__name__}"
            ) from error
        return _read_answer(url, reply.status_code, bytes(body))


def _read_answer(url: str, status: int, body: bytes) -> dict[str, Any]:
    try:
        found = strict_json.loads(body, max_bytes=DOCUMENT_MOST_BYTES)
    except WireError as error:
        found = None
        problem = f"{url} answers with {status}, and no JSON: {error.message}"
    else:
        problem = f"{url} answers with {status}, and no object"
    if status == 200 and isinstance(found, dict):
        return found
    match found:
        case {"error": str(code)} if _ERROR.fullmatch(code):
            remedy = _REFUSALS.get(code, "its own log says why")
            raise ProviderFault(f"{url} refuses: {code}; {remedy}")
        case _:
            raise ProviderFault(problem)
