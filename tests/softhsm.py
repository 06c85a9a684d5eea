"""A hardware token for the tests: SoftHSM, a PKCS#11 library whose tokens are folders; and faults in it.

    hsm = SoftHsm.install(tmp_path, monkeypatch)
    hsm.make_token("harmony")
    hsm.uri("object=root-a")        with the file of its PIN

`breaking` puts a function of ours in the place of one of the library's, in its table of functions: what a
token answers that is pulled out, or locked, which SoftHSM never is.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import attrs
import pkcs11
import pytest
from pkcs11 import Attribute, KeyType, Session
from pkcs11.util.ec import encode_named_curve_parameters

__all__ = ["CALLS", "PIN", "SoftHsm", "breaking"]

PIN = "1234"
CALLS = {
    "C_GetTokenInfo": 6,
    "C_GetMechanismList": 7,
    "C_OpenSession": 12,
    "C_Login": 18,
    "C_Sign": 43,
}
"""Where some functions stand in CK_FUNCTION_LIST, after its version."""

_LIBRARIES = (
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
)


@attrs.frozen
class SoftHsm:
    """Tokens below *root*, which the environment of this process names."""

    root: Path
    library: str

    @classmethod
    def install(cls, root: Path, patch: pytest.MonkeyPatch) -> Self:
        """Skip the test where there is no SoftHSM, and it cannot be installed; fail in CI."""
        library = _find_library()
        (root / "tokens").mkdir()
        settings = root / "softhsm2.conf"
        settings.write_text(
            f"directories.tokendir = {root / 'tokens'}\nobjectstore.backend = file\nlog.level = ERROR\n"
        )
        patch.setenv("SOFTHSM2_CONF", str(settings))
        patch.setenv("PKCS11_MODULE", library)
        found = cls(root, library)
        found.write_pin(PIN)
        return found

    @property
    def pin_file(self) -> Path:
        return self.root / "pin"

    def write_pin(self, pin: str) -> None:
        self.pin_file.touch(mode=0o600)
        self.pin_file.write_text(pin + "\n")

    def make_token(self, label: str) -> None:
        """As a person does it by SoftHSM's own program; the library reads its tokens anew."""
        run_util("--init-token", "--free", "--label", label, "--so-pin", "12345678", "--pin", PIN)
        pkcs11.lib(self.library).reinitialize()

    def uri(self, what: str) -> str:
        """The URI of *what*, such as ``token=harmony;object=a``, with the file of the PIN."""
        return f"pkcs11:{what}?pin-source=file:{self.pin_file}"

    @contextmanager
    def session(self, label: str) -> Generator[Session]:
        """Logged in, to put other keys there."""
        library = pkcs11.lib(self.library)
        library.reinitialize()
        with library.get_token(token_label=label).open(rw=True, user_pin=PIN) as session:
            yield session

    def make_curve_key(self, token: str, label: str, *, curve: str = "secp256r1") -> None:
        """One for ECDSA."""
        with self.session(token) as session:
            parameters = session.create_domain_parameters(
                KeyType.EC, {Attribute.EC_PARAMS: encode_named_curve_parameters(curve)}, local=True
            )
            parameters.generate_keypair(store=True, label=label, id=b"\x07")

    def make_rsa_key(self, token: str, label: str) -> None:
        with self.session(token) as session:
            session.generate_keypair(KeyType.RSA, 2048, store=True, label=label, id=b"\x08")

    def make_ed25519_key(self, token: str, label: str, id: bytes) -> None:
        with self.session(token) as session:
            parameters = session.create_domain_parameters(
                KeyType.EC_EDWARDS, {Attribute.EC_PARAMS: bytes.fromhex("06032b6570")}, local=True
            )
            parameters.generate_keypair(
                mechanism=pkcs11.Mechanism.EC_EDWARDS_KEY_PAIR_GEN, store=True, label=label, id=id
            )

    def pull_out(self) -> None:
        """Take every token away, while the library runs."""
        shutil.rmtree(self.root / "tokens")
        (self.root / "tokens").mkdir()


def run_util(*arguments: str) -> None:
    subprocess.run(["softhsm2-util", *arguments], check=True, capture_output=True)


@contextmanager
def breaking(
    library: str, name: str, replacement: Callable[..., int], *, arguments: int
) -> Generator[None]:
    """Have *replacement* called for *name*, with so many *arguments*, each a number or an address; the
    original comes before them."""
    table = ctypes.c_void_p()
    assert ctypes.CDLL(library).C_GetFunctionList(ctypes.byref(table)) == 0
    assert table.value is not None
    slot = ctypes.c_void_p.from_address(table.value + 8 * (1 + CALLS[name]))
    kind = ctypes.CFUNCTYPE(ctypes.c_ulong, *[ctypes.c_void_p] * arguments)
    address = slot.value
    assert address is not None
    original = kind(address)
    ours = kind(lambda *given: replacement(original, *given))
    slot.value = ctypes.cast(ours, ctypes.c_void_p).value
    try:
        yield
    finally:
        slot.value = address


def _find_library() -> str:
    found = _look()
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        for command in (["apt-get", "update", "-q"], ["apt-get", "install", "-qy", "softhsm2"]):
            subprocess.run(command, check=False, capture_output=True)
        found = _look()
    if found is None:
        why = "there is no SoftHSM here: apt install softhsm2"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(why)
    return found


def _look() -> str | None:
    there = (each for each in _LIBRARIES if Path(each).exists())
    return next(there, None) if shutil.which("softhsm2-util") else None
