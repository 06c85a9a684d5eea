"""Does an ID token count? Signed by the provider, for us, for this sign-in, and not expired.

The algorithm is chosen by us, not by the token: signatures by a private key alone. With ``none``, or with the
provider's public key taken for a shared secret (``HS256``), anybody could make one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from authlib.oidc.core import CodeIDToken
from cryptography.exceptions import UnsupportedAlgorithm
from joserfc import jwt
from joserfc.errors import (
    BadSignatureError,
    ExpiredTokenError,
    InvalidClaimError,
    InvalidKeyIdError,
    JoseError,
    UnsupportedAlgorithmError,
)
from joserfc.jwk import JWKRegistry, Key, KeySet

from harmony_core.visible import cut, visible

from .faults import ProviderFault

__all__ = ["ALGORITHMS", "verify_id_token"]

ALGORITHMS = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "EdDSA"),
)
LEEWAY_S = 60
"""So far may the provider's clock be from ours."""
SUBJECT_MOST = 255
_RSA_LEAST = 342
"""Characters of the modulus of a key of 2048 bits."""

_WRONG: Mapping[str, str] = {
    "iss": "it is another issuer's",
    "aud": "it is for another client",
    "azp": "it was issued to another client",
    "nonce": "it is not for this sign-in",
    "at_hash": "it belongs to another access token",
    "iat": "it is from the future; compare the clocks",
    "nbf": "it does not count yet; compare the clocks",
}


def _find_usable(keys: Iterable[Any]) -> list[Key]:
    """Return those of *keys* that we can use; a provider may have others, for others (RFC 7517, 5)."""
    found: list[Key] = []
    for each in keys:
        match each:
            case {"kty": "RSA", "n": str(modulus)} if len(modulus) < _RSA_LEAST:
                continue
            case {"kty": "RSA" | "EC" | "OKP"}:
                with suppress(JoseError, ValueError, TypeError, LookupError, UnsupportedAlgorithm):
                    found.append(JWKRegistry.import_key(each))
            case _:
                continue
    return found


_WORDS: tuple[tuple[type[Exception], str], ...] = (
    (ExpiredTokenError, "it has expired; compare the clocks"),
    (BadSignatureError, "its signature is not the provider's"),
    (InvalidKeyIdError, "it is signed by a key that the provider does not publish"),
    (UnsupportedAlgorithmError, f"its algorithm is none of {', '.join(ALGORITHMS)}"),
)


def verify_id_token(
    token: str,
    keys: Mapping[str, Any],
    *,
    issuer: str,
    client_id: str,
    nonce: str,
    access_token: str,
) -> dict[str, Any]:
    """Return the claims of *token*, signed by one of *keys* (a JWK set). `ProviderFault` says why it does not
    count."""
    try:
        return _verify(
            token,
            keys,
            {"iss": {"essential": True, "value": issuer}, "aud": {"value": client_id}},
            {"nonce": nonce, "client_id": client_id, "access_token": access_token},
        )
    except (JoseError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise ProviderFault(f"its ID token does not count: {_why(error)}") from error
    except (UnsupportedAlgorithm, OverflowError, RecursionError) as error:
        raise ProviderFault(
            f"its ID token or its keys cannot be used: {cut(visible(str(error)), 200)}"
        ) from error


def _verify(
    token: str, keys: Mapping[str, Any], options: dict[str, Any], params: dict[str, Any]
) -> dict[str, Any]:
    found = jwt.decode(token, KeySet(_find_usable(keys["keys"])), algorithms=ALGORITHMS)
    claims = CodeIDToken(found.claims, found.header, options, params)
    claims.validate(leeway=LEEWAY_S)
    subject = claims["sub"]
    if not 0 < len(subject) <= SUBJECT_MOST:
        raise ValueError(f"its sub must have 1 to {SUBJECT_MOST} characters")
    return dict(claims)


def _why(error: Exception) -> str:
    if isinstance(error, InvalidClaimError) and error.claim in _WRONG:
        return _WRONG[error.claim]
    told = cut(visible(str(error)), 200) or type(error).__name__
    return next((words for kind, words in _WORDS if isinstance(error, kind)), told)
