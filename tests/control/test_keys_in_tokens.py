"""Keys in a hardware token: SoftHSM's. What they sign counts for a device; what cannot be signed says why."""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pkcs11
import pytest
from pkcs11 import Attribute, ObjectClass, Session

from harmony_control.server.roster import publish_devices
from harmony_control.signers import create_key_in_token, load_signer, read_public_key
from harmony_control.store import operator_key, token_key
from harmony_control.store.home import Home
from harmony_control.store.secrets import FleetSecrets
from harmony_control.store.token_key import TokenKey
from harmony_control.store.token_uri import TokenUri
from harmony_core.errors import ConfigError, UsageError
from harmony_core.wire.envelope import VerifyKey, generate_key, open_envelope, pin_keys, seal
from tests.nats import serving
from tests.softhsm import PIN, SoftHsm, breaking

from .ground import command, environment, harmony
from .test_trust import Ground

CKR_MECHANISM_INVALID, CKR_DEVICE_REMOVED = 0x70, 0x32
CKR_PIN_INCORRECT, CKR_PIN_LOCKED = 0xA0, 0xA4
CKF_PROTECTED, CKF_FINAL_TRY, CKF_LOCKED = 0x100, 0x20000, 0x40000


@pytest.fixture
def hsm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SoftHsm:
    found = SoftHsm.install(tmp_path, monkeypatch)
    found.make_token("harmony")
    return found


def make_key(uri: str) -> tuple[VerifyKey, bool]:
    return create_key_in_token(uri, None)


def test_a_key_is_made_in_the_token_once_and_signs_there(hsm: SoftHsm, tmp_path: Path) -> None:
    uri, half = hsm.uri("token=harmony;object=a"), tmp_path / "a.pub"
    public, is_made = create_key_in_token(uri, half)
    assert is_made
    assert half.read_text() == public.to_text() + "\n"
    assert make_key(uri) == (public, False)
    with hsm.session("harmony") as session:
        (key,) = session.get_objects({Attribute.CLASS: ObjectClass.PRIVATE_KEY})
        assert key[Attribute.SENSITIVE]
        assert not key[Attribute.EXTRACTABLE]
        assert key[Attribute.TOKEN]
    signer = load_signer(uri)
    assert signer.public == public
    for content in (b"{}", b"x" * 200_000):
        envelope = seal(content, signer)
        assert open_envelope(envelope, pin_keys([public])).payload == content
    other = create_key_in_token(hsm.uri("token=harmony;object=b"), None)
    assert other[1]
    assert other[0] != public


def test_a_file_of_the_public_half_is_not_overwritten_and_nothing_is_made(
    hsm: SoftHsm, tmp_path: Path
) -> None:
    half = tmp_path / "a.pub"
    half.write_text("mine")
    uri = hsm.uri("token=harmony;object=a")
    with pytest.raises(UsageError, match="exists and may be in use"):
        create_key_in_token(uri, half)
    assert half.read_text() == "mine"
    with pytest.raises(ConfigError, match="has no private key 'a'"):
        load_signer(uri)


def test_a_public_half_alone_is_not_believed(hsm: SoftHsm) -> None:
    """Any token tells public halves to everybody, under any label: only what has signed is published."""
    hsm.make_ed25519_key("harmony", "a", b"\x01")
    hsm.make_ed25519_key("harmony", "b", b"\x02")
    uri = hsm.uri("token=harmony;object=a")
    public = load_signer(uri).public

    def find(session: Session, kind: ObjectClass, id: bytes) -> Any:
        (found,) = session.get_objects({Attribute.CLASS: kind, Attribute.ID: id})
        return found

    with hsm.session("harmony") as session:
        find(session, ObjectClass.PUBLIC_KEY, b"\x01")[Attribute.LABEL] = "b"
        find(session, ObjectClass.PUBLIC_KEY, b"\x02")[Attribute.LABEL] = "a"
    forget_sessions(hsm)
    assert read_public_key(uri) == public
    with hsm.session("harmony") as session:
        find(session, ObjectClass.PUBLIC_KEY, b"\x01").destroy()
        find(session, ObjectClass.PUBLIC_KEY, b"\x02")[Attribute.ID] = b"\x01"
    forget_sessions(hsm)
    with pytest.raises(ConfigError, match="what the token has signed is not by"):
        read_public_key(uri)
    with hsm.session("harmony") as session:
        find(session, ObjectClass.PRIVATE_KEY, b"\x01").destroy()
    forget_sessions(hsm)
    with pytest.raises(ConfigError, match="has no private key 'a'"):
        read_public_key(uri)


def test_the_public_half_wants_the_pin(hsm: SoftHsm) -> None:
    make_key(hsm.uri("token=harmony;object=a"))
    forget_sessions(hsm)
    hsm.pin_file.unlink()
    with pytest.raises(ConfigError, match="cannot read the PIN in"):
        read_public_key(hsm.uri("token=harmony;object=a"))


def test_a_public_half_that_is_named_is_compared(hsm: SoftHsm, tmp_path: Path) -> None:
    uri, half = hsm.uri("token=harmony;object=a"), tmp_path / "a.pub"
    create_key_in_token(uri, half)
    assert load_signer(uri, half).public == read_public_key(str(half))
    half.write_text(generate_key().public.to_text() + "\n")
    with pytest.raises(ConfigError, match="not the one that was named; name"):
        load_signer(uri, half)


def test_a_token_that_keeps_no_public_half_needs_it(hsm: SoftHsm, tmp_path: Path) -> None:
    uri, half = hsm.uri("token=harmony;object=a"), tmp_path / "a.pub"
    create_key_in_token(uri, half)
    with hsm.session("harmony") as session:
        for each in list(session.get_objects({Attribute.CLASS: ObjectClass.PUBLIC_KEY})):
            each.destroy()
    forget_sessions(hsm)
    for ask in (load_signer, read_public_key):
        with pytest.raises(
            UsageError, match="keeps no public half of 'a'; name its file, with --public"
        ):
            ask(uri)
    signer = load_signer(uri, half)
    seal(b"{}", signer)
    half.write_text(generate_key().public.to_text() + "\n")
    with pytest.raises(ConfigError, match="what the token has signed is not by"):
        seal(b"{}", load_signer(uri, half))


def test_of_two_keys_with_one_label_the_id_says_which(hsm: SoftHsm) -> None:
    hsm.make_ed25519_key("harmony", "a", b"\x01")
    hsm.make_ed25519_key("harmony", "a", b"\x02")
    with pytest.raises(
        ConfigError, match=r"has 2 private keys 'a'; say which, by id=: (%01, %02|%02, %01)$"
    ):
        load_signer(hsm.uri("token=harmony;object=a"))
    one, two = (load_signer(hsm.uri(f"token=harmony;object=a;id=%0{each}")) for each in (1, 2))
    assert one.public != two.public
    assert read_public_key(hsm.uri("id=%02")) == two.public
    for signer in (one, two):
        open_envelope(seal(b"{}", signer), pin_keys([signer.public]))


def test_of_two_tokens_with_one_label_the_serial_says_which(hsm: SoftHsm) -> None:
    hsm.make_token("harmony")
    with pytest.raises(ConfigError, match="2 tokens are there that are token 'harmony'") as told:
        create_key_in_token(hsm.uri("token=harmony;object=a"), None)
    serials = re.findall(r"\(serial (\w+)\)", str(told.value))
    assert len(serials) == 2
    keys = {create_key_in_token(hsm.uri(f"serial={each};object=a"), None) for each in serials}
    assert {is_made for _, is_made in keys} == {True}
    assert len(keys) == 2


@pytest.mark.parametrize("kind", ["RSA", "EC"])
def test_a_key_of_another_kind_is_refused(hsm: SoftHsm, kind: str) -> None:
    make = hsm.make_rsa_key if kind == "RSA" else hsm.make_curve_key
    make("harmony", "a")
    uri = hsm.uri("token=harmony;object=a")
    asks: list[Callable[[str], object]] = [load_signer, read_public_key, make_key]
    for ask in asks:
        with pytest.raises(
            ConfigError, match=f"of the kind {kind}, and devices verify Ed25519 alone"
        ):
            ask(uri)


def test_a_wrong_pin_in_a_file_is_sent_once(hsm: SoftHsm) -> None:
    """Whoever tries again and again, as a server does, would lock the token."""
    uri = hsm.uri("token=harmony;object=a")
    public, _ = make_key(uri)
    forget_sessions(hsm)
    hsm.write_pin("9999")
    signer, sent = TokenKey(public, TokenUri.parse(uri)), list[None]()

    def log_in(original: Any, *given: Any) -> int:
        sent.append(None)
        return int(original(*given))

    with breaking(hsm.library, "C_Login", log_in, arguments=4):
        for said in ("the PIN is wrong; look", "not sent again until this program is started anew"):
            with pytest.raises(ConfigError, match=said) as told:
                signer.sign(b"")
            assert "9999" not in str(told.value)
        again = hsm.root / "again"
        shutil.copy(hsm.pin_file, again)
        for other in (
            hsm.uri("object=a;token=harmony"),
            f"pkcs11:object=a?pin-source={again}",
            hsm.uri("token=harmony;object=b"),
        ):
            with pytest.raises(ConfigError, match="This PIN is not sent again"):
                read_public_key(other)
        assert len(sent) == 1
        hsm.write_pin(PIN)
        assert read_public_key(uri) == public
        assert len(sent) == 2


def test_a_pin_that_one_token_refuses_is_sent_to_another(
    hsm: SoftHsm,
) -> None:
    hsm.make_token("second")
    make_key(hsm.uri("token=second;object=a"))
    forget_sessions(hsm)
    with (
        breaking(hsm.library, "C_Login", answering(CKR_PIN_INCORRECT), arguments=4),
        pytest.raises(ConfigError, match="the PIN is wrong"),
    ):
        read_public_key(hsm.uri("token=harmony;object=a"))
    read_public_key(hsm.uri("token=second;object=a"))


def test_a_locked_token_is_told(hsm: SoftHsm) -> None:
    with (
        breaking(hsm.library, "C_Login", answering(CKR_PIN_LOCKED), arguments=4),
        pytest.raises(ConfigError, match="its PIN is locked, after too many wrong ones; unlock it"),
    ):
        load_signer(hsm.uri("token=harmony;object=a"))


def answering(result: int) -> Callable[..., int]:
    """A function that answers so, and does nothing."""

    def answer(original: Any, *given: Any) -> int:
        return result

    return answer


def flagging(flags: int) -> Any:
    """A token that says *flags* of itself, too."""

    def tell(original: Any, slot: Any, info: int) -> int:
        result = int(original(slot, info))
        ctypes.c_ulong.from_address(info + 96).value |= flags
        return result

    return tell


def test_no_pin_is_sent_to_a_token_that_says_it_is_locked_nor_the_last_try_out_of_a_file(
    hsm: SoftHsm,
) -> None:
    uri, sent = hsm.uri("token=harmony;object=a"), list[None]()

    def log_in(original: Any, *given: Any) -> int:
        sent.append(None)
        return int(original(*given))

    with breaking(hsm.library, "C_Login", log_in, arguments=4):
        for flags, said in (
            (CKF_LOCKED, "its PIN is locked"),
            (CKF_FINAL_TRY, "one wrong PIN more locks"),
        ):
            with (
                breaking(hsm.library, "C_GetTokenInfo", flagging(flags), arguments=2),
                pytest.raises(ConfigError, match=said),
            ):
                load_signer(uri)
        assert not sent
        make_key(uri)
    assert sent


def test_a_token_with_keys_to_type_on_is_given_no_pin(hsm: SoftHsm) -> None:
    create_key_in_token(hsm.uri("token=harmony;object=a"), None)
    forget_sessions(hsm)
    typed = ctypes.create_string_buffer(PIN.encode())

    def log_in(original: Any, session: Any, user: Any, pin: int | None, length: int | None) -> int:
        assert not pin
        assert not length
        return int(original(session, user, ctypes.cast(typed, ctypes.c_void_p), len(PIN)))

    with (
        breaking(hsm.library, "C_GetTokenInfo", flagging(CKF_PROTECTED), arguments=2),
        breaking(hsm.library, "C_Login", log_in, arguments=4),
    ):
        signer = load_signer("pkcs11:token=harmony;object=a")
        open_envelope(seal(b"{}", signer), pin_keys([signer.public]))


def test_a_token_that_is_pulled_out_is_told_and_signs_again_when_it_is_back(
    hsm: SoftHsm, capfd: pytest.CaptureFixture[str]
) -> None:
    uri = hsm.uri("token=harmony;object=a")
    make_key(uri)
    signer = load_signer(uri)
    with (
        breaking(hsm.library, "C_Sign", answering(CKR_DEVICE_REMOVED), arguments=5),
        pytest.raises(ConfigError, match="is not there any more; put it in again"),
    ):
        signer.sign(b"")
    open_envelope(seal(b"{}", signer), pin_keys([signer.public]))
    pkcs11.lib(
        hsm.library
    ).reinitialize()  # its session is over, as after being pulled out and put in again
    open_envelope(seal(b"{}", signer), pin_keys([signer.public]))
    hsm.pull_out()
    with pytest.raises(ConfigError, match="there is no token that is token 'harmony'"):
        signer.sign(b"")
    assert not capfd.readouterr().err  # the package would write a traceback


def test_a_token_that_knows_no_ed25519_is_told(hsm: SoftHsm) -> None:
    uri = hsm.uri("token=harmony;object=a")
    make_key(uri)
    signer = load_signer(uri)
    with (
        breaking(hsm.library, "C_Sign", answering(CKR_MECHANISM_INVALID), arguments=5),
        pytest.raises(ConfigError, match="does not sign as devices verify, with Ed25519"),
    ):
        signer.sign(b"")


def test_what_a_token_signs_otherwise_does_not_count(hsm: SoftHsm) -> None:
    uri = hsm.uri("token=harmony;object=a")
    make_key(uri)
    signer = load_signer(uri)

    def sign(original: Any, session: Any, data: Any, length: Any, signature: int, size: int) -> int:
        result = int(original(session, data, length, signature, size))
        if signature:
            ctypes.c_ubyte.from_address(signature).value ^= 1
        return result

    with (
        breaking(hsm.library, "C_Sign", sign, arguments=5),
        pytest.raises(ConfigError, match="what the token has signed is not by"),
    ):
        seal(b"{}", signer)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("pkcs11:token=harmony", "says no key; add object=LABEL or id="),
        ("pkcs11:", "says no key"),
        ("pkcs11:object=a?pin-value=1234", "read by whoever lists processes"),
        ("pkcs11:object=a;pin-value=1234", "read by whoever lists processes"),
        ("pkcs11:object=a&pin-value=1234", "read by whoever lists processes"),
        ("PKCS11:object=a?pin-value=1234", "read by whoever lists processes"),
        ("pkcs11:object=a?pin=1234", "read by whoever lists processes"),
        ("pkcs11:object=a?PIN1234", "read by whoever lists processes"),
        ("pkcs11:object=a?pin_value=1234", "read by whoever lists processes"),
        ("pkcs11:object=a?pin%2Dvalue=1234", "read by whoever lists processes"),
        ("pkcs11:object=a?%70in-value=1234", "read by whoever lists processes"),
        ("pkcs11:objekt=a?pin-source=1234", "is no file of this machine"),
        ("pkcs11:object=a?pin-source=file:1234", "is no file of this machine"),
        ("pkcs11:object=a?pin-source=%zz1234", "is no file of this machine"),
        ("pkcs11:object=a?pin-source=file://host/pin", "is no file of this machine"),
        ("pkcs11:object=a\n", "a character that cannot be shown (U+000A)"),
        ("pkcs11:object=a\x1b[2J", "a character that cannot be shown (U+001B)"),
        ("pkcs11:object=a\u2028b", "a character that cannot be shown (U+2028)"),
        ("pkcs11:object=a\0", "a character that cannot be shown (U+0000)"),
        ("pkcs11:object=a\ud800", "a character that cannot be shown (U+D800)"),
        ("pkcs11:object=a?pin-source=file:/a%00b", "'/a\\x00b' is no path that can be shown"),
        ("pkcs11:object=a?pin-source=/a%0ab", "'/a\\nb' is no path that can be shown"),
        ("pkcs11:object=a?module-path=/a%1bb", "'/a\\x1bb' is no path that can be shown"),
        ("root\0.key", "'root\\x00.key' has a null character"),
        ("file2:root\0.pem", "has a null character"),
        ("pkcs11:object=a;objekt=b", "'objekt' is not known here; did you mean 'object'"),
        ("pkcs11:object=a;object=b", "object is said twice"),
        ("pkcs11:object", "is not NAME=VALUE"),
        ("pkcs11:object=%6", "is followed by two hexadecimal digits"),
        ("pkcs11:object=%ff", "is not UTF-8"),
        ("pkcs11:object=a;type=cert", "type is `private` or `public`"),
        ("pkcs11:object=a?pin-source=|cat", "no program is run for a PIN"),
        ("pkcs11:object=a?pin-source=file:pin", "named from / on; say pin-source=file:/PATH"),
        ("pkcs11:object=a?module-path=lib.so", "another file in another directory"),
        ("pkcs11:object=a?module-name=softhsm2", "'module-name' is not known here"),
    ],
)
def test_a_uri_that_says_nothing_clear_is_refused(
    text: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PKCS11_MODULE", "/usr/lib/softhsm/libsofthsm2.so")
    with pytest.raises(UsageError) as told:
        load_signer(text)
    assert said in str(told.value)
    assert "1234" not in str(told.value)
    assert str(told.value).isprintable()


@pytest.mark.parametrize(
    "source", ["/etc/pin", "file:/etc/pin", "FILE:///etc/pin", "file://LocalHost/etc%2fpin"]
)
def test_the_file_of_a_pin_is_a_path_or_a_uri(source: str) -> None:
    uri = TokenUri.parse(f"Pkcs11:object=a?pin-source={source}&module-path=/lib.so")
    assert uri.pin_file == Path("/etc/pin")


def test_what_has_no_scheme_is_no_uri() -> None:
    with pytest.raises(UsageError, match="begin it with pkcs11:"):
        TokenUri.parse("object=a?module-path=/lib.so")


def test_a_public_half_with_a_null_character_is_refused() -> None:
    with pytest.raises(UsageError, match="has a null character"):
        read_public_key("a\0.pub")


def test_a_uri_is_read_as_rfc_7512_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PKCS11_MODULE", "/lib.so")
    uri = TokenUri.parse("pkcs11:token=My%20token;object=a%3bb;id=%01%FFz;type=private")
    assert (uri.token, uri.label, uri.id) == ({"token": "My token"}, "a;b", b"\x01\xffz")
    assert (uri.module, uri.pin_file) == (Path("/lib.so"), None)
    assert uri.with_module() == f"{uri.text}?module-path=/lib.so"
    text = "pkcs11:object=a?pin-source=file:///etc/pin&module-path=/a%20b.so"
    uri = TokenUri.parse(text)
    assert (uri.module, uri.pin_file, uri.token) == (Path("/a b.so"), Path("/etc/pin"), {})
    assert uri.with_module() == text
    monkeypatch.delenv("PKCS11_MODULE")
    with pytest.raises(UsageError, match="says no library that speaks to the token; add"):
        TokenUri.parse("pkcs11:object=a")


def test_a_library_that_is_none_is_told(hsm: SoftHsm, tmp_path: Path) -> None:
    text = tmp_path / "text.so"
    text.write_text("no library")
    text.chmod(0o644)
    other = Path(sys.executable)
    for path in (text, other, tmp_path):
        expected = (
            "there is no library" if path == tmp_path else "is no PKCS#11 library that can be used"
        )
        with pytest.raises(ConfigError, match=expected):
            load_signer(f"pkcs11:object=a?module-path={path}")


def test_a_token_that_is_not_there_is_told_with_those_that_are(hsm: SoftHsm) -> None:
    with pytest.raises(
        ConfigError, match=r"no token that is token 'other'; .* now: 'harmony' \(serial"
    ):
        load_signer(hsm.uri("token=other;object=a"))
    with pytest.raises(ConfigError, match=r"has no private key 'a'; .*harmony trust key 'pkcs11:"):
        load_signer(hsm.uri("token=harmony;object=a"))


def test_a_pin_that_others_can_read_is_refused(hsm: SoftHsm) -> None:
    uri = hsm.uri("token=harmony;object=a")
    hsm.pin_file.chmod(0o640)
    with pytest.raises(ConfigError, match=r"others can read .* run `chmod 600"):
        load_signer(uri)
    hsm.pin_file.chmod(0o600)
    hsm.write_pin("12\n34")
    with pytest.raises(ConfigError, match="is not one line with a PIN"):
        load_signer(uri)
    hsm.pin_file.unlink()
    with pytest.raises(ConfigError, match="cannot read the PIN in"):
        load_signer(uri)


def test_what_is_no_file_with_a_pin_is_told(hsm: SoftHsm) -> None:
    """And not waited for, as for a pipe into which nobody writes."""

    def large() -> None:
        hsm.write_pin("1" * 2000)

    makes: list[Callable[[], None]] = [lambda: os.mkfifo(hsm.pin_file, 0o600), large]
    for make in makes:
        hsm.pin_file.unlink()
        make()
        with pytest.raises(ConfigError, match="is not a file of one line with a PIN"):
            load_signer(hsm.uri("token=harmony;object=a"))
    hsm.pin_file.unlink()
    hsm.pin_file.symlink_to("/dev/zero")
    with pytest.raises(ConfigError, match="is not a file of one line with a PIN"):
        load_signer(hsm.uri("token=harmony;object=a"))


def test_a_library_that_others_may_write_is_not_run(hsm: SoftHsm) -> None:
    library = hsm.root / "mine.so"
    library.write_bytes(b"no library")
    for mode in (0o666, 0o664):
        library.chmod(mode)
        with pytest.raises(ConfigError, match=r"others may write .*; .* run: chmod go-w"):
            load_signer(f"pkcs11:object=a?module-path={library}")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to others")
def test_what_another_user_owns_is_not_believed(hsm: SoftHsm) -> None:
    library = hsm.root / "mine.so"
    library.touch(mode=0o644)
    os.chown(library, 1000, 1000)
    with pytest.raises(ConfigError, match="user with the number 1000, who could have a program"):
        load_signer(f"pkcs11:object=a?module-path={library}")
    os.chown(hsm.pin_file, 1000, 1000)
    with pytest.raises(ConfigError, match="user with the number 1000, who could have a wrong PIN"):
        load_signer(hsm.uri("token=harmony;object=a"))


async def test_without_the_package_it_is_said_what_to_install(hsm: SoftHsm, tmp_path: Path) -> None:
    (tmp_path / "none" / "pkcs11").mkdir(parents=True)
    (tmp_path / "none" / "pkcs11" / "__init__.py").write_text(
        "raise ModuleNotFoundError('No module named pkcs11', name='pkcs11')"
    )
    said = await harmony(
        None, "trust", "key", hsm.uri("object=a"), PYTHONPATH=str(tmp_path / "none")
    )
    assert said.status == 2
    assert "install Harmony with pkcs11.lock as well" in said.err


def test_an_operators_key_in_a_token(hsm: SoftHsm, tmp_path: Path) -> None:
    """What is read all day, its public half, asks no token; and secrets say that a token opens none."""
    home, uri = Home(tmp_path / "ada"), hsm.uri("token=harmony;object=ada")
    public = operator_key.create(home, token=uri)
    assert home.operator_key.read_text() == (
        f"{uri}&module-path={hsm.library}\n{public.to_text()}\n"
    )
    assert home.operator_key.stat().st_mode & 0o777 == 0o600
    assert operator_key.load_all_public(home, home.root)["operator"].signing == public
    envelope = seal(b"{}", operator_key.load(home))
    assert open_envelope(envelope, pin_keys([public])).payload == b"{}"
    with pytest.raises(UsageError, match="exists and devices may trust it"):
        operator_key.create(home, token=uri)
    secrets = FleetSecrets(home)
    with pytest.raises(ConfigError, match="in a token, which only signs; have another operator"):
        secrets.set("db", "hidden")
    assert not secrets.names()
    hsm.pull_out()
    forget_sessions(hsm)
    assert operator_key.load_public(home) == public
    with pytest.raises(ConfigError, match="there is no token"):
        operator_key.load(home).sign(b"")


@pytest.mark.parametrize("second", ["", "harmony-ed25519:AAAA", "a\nb"])
def test_a_damaged_file_that_names_a_token_is_told(
    tmp_path: Path, second: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "operator.key"
    path.touch(mode=0o600)
    path.write_text(f"pkcs11:object=a?module-path=/lib.so\n{second}\n")
    with pytest.raises(ConfigError, match=f"^{path}: "):
        operator_key.read_signing_key(path, made_by="harmony keygen")


def forget_sessions(hsm: SoftHsm) -> None:
    """As a process that starts anew."""
    token_key.forget_sessions(Path(hsm.library))


async def test_devices_take_what_a_token_has_signed(hsm: SoftHsm, tmp_path: Path) -> None:
    """The root document, and what needs a second signature; a real agent verifies both."""
    root, second = hsm.uri("token=harmony;object=root"), hsm.uri("token=harmony;object=second")
    async with _ground(tmp_path / "fleet") as ground:
        said = await ground.run("trust", "key", root)
        assert said.out.splitlines()[-1] == read_public_key(root).to_text()
        said = await ground.run("trust", "key", second, "--json")
        assert said.documents[0]["made"]
        with ground.agent():
            said = await ground.run("trust", "init", "--root-key", root, "--key", root)
            assert "published" in said.out
            assert not ground.home.root_key.exists()
            await ground.until(root_version=1)
            both = (str(ground.home.operator_pub), second)
            await ground.run(
                "trust", "add", "both", *both, "--threshold", "2", "--kinds", "FileScore", "--key", root
            )  # fmt: skip
            await ground.until(root_version=2)
            await ground.push("by one", ends=3)
            await ground.push("by both", "--sign-with", second)
            assert ground.motd == "by both"


async def test_an_operator_whose_key_is_in_a_token_pushes_and_asks(
    hsm: SoftHsm, tmp_path: Path
) -> None:
    """Also while the connection is there already: what the library leaves in OpenSSL must not end it."""
    uri, bob = hsm.uri("token=harmony;object=bob"), Home(tmp_path / "bob")
    async with _ground(tmp_path / "fleet") as ground:
        said = await harmony(bob, "keygen", "--token", uri)
        assert said.status == 0, said.err
        assert f"says where your signing key is: {uri}" in said.out
        fleet = tmp_path / "bob.fleet"
        await ground.run(
            "add-operator", "bob", str(bob.operator_pub), "--out", str(fleet), "--url",
            ground.home.control().url,
        )  # fmt: skip
        await ground.run("trust", "init")
        await ground.run("trust", "add", "bob", str(bob.operator_pub))
        said = await harmony(bob, "join", str(fleet))
        assert said.status == 0, said.err
        await publish_devices(ground.home, ground.bus.admin)
        path = tmp_path / "motd.json"
        spec = {"path": "/etc/motd", "content": "by bob"}
        path.write_text(json.dumps([{"id": "motd", "kind": "FileScore", "spec": spec}]))
        with ground.agent():
            # The library is not in this environment: the key's file says it.
            said = await harmony(
                bob, "push-score", "pi-1", str(path), "--timeout", "30", PKCS11_MODULE=""
            )
            assert said.status == 0, said.err
            assert ground.motd == "by bob"
            said = await harmony(bob, "history", "pi-1")
            assert said.status == 0, said.err
            hsm.write_pin("9999")
            spec["content"] = "by nobody"
            path.write_text(json.dumps([{"id": "motd", "kind": "FileScore", "spec": spec}]))
            said = await harmony(bob, "push-score", "pi-1", str(path), "--timeout", "30")
            assert said.status == 2
            assert "the PIN is wrong" in said.err
            assert ground.motd == "by bob"


def _shown_in_the_documentation() -> list[list[str]]:
    page = (Path(__file__).parents[2] / "docs/running.md").read_text()
    section = page.partition("\n## Keys in a token\n")[2].partition("\n## ")[0]
    return [shlex.split(line) for line in re.findall(r"^\$ (.+)$", section, re.MULTILINE)]


async def test_what_the_documentation_types_does_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At a terminal, where each command asks for the PIN, once."""
    hsm = SoftHsm.install(tmp_path, monkeypatch)
    init, export, key, first, renew, keygen = _shown_in_the_documentation()
    async with _ground(tmp_path / "fleet") as ground:
        env = environment(ground.home)
        said = await at_terminal(init, env=env, cwd=tmp_path)
        assert len(re.findall("PIN: ", said)) == 4
        assert export[1].partition("=")[0] == "PKCS11_MODULE"
        said = await at_terminal(command(*key[1:]), env=env, cwd=tmp_path)
        assert said.count("PIN of the token harmony: ") == 1
        assert PIN not in said
        public = read_public_key(str(tmp_path / "root-a.pub"))
        for each in (first, renew):
            said = await at_terminal(command(*each[1:]), env=env, cwd=tmp_path)
            assert said.count("PIN of the token harmony: ") == 1
            assert "published" in said
        said = await at_terminal(command("trust", "show", "--json"), env=env, cwd=tmp_path)
        root = json.loads(said)["root"]
        assert (root["version"], root["root_keys"]) == (2, [public.to_text()])
        ada = Home(tmp_path / "ada")
        words = [each.replace("/root/pin", str(hsm.pin_file)) for each in keygen[1:]]
        said = await at_terminal(command(*words), env=environment(ada), cwd=tmp_path)
        assert "PIN of" not in said
        assert operator_key.load_public(ada) != public


async def at_terminal(words: list[str], *, env: dict[str, str], cwd: Path) -> str:
    """Return what a command shows at a terminal at which the PIN is typed whenever it is asked for."""
    process = await asyncio.create_subprocess_exec(
        *("script", "--quiet", "--return", "--command", shlex.join(words), "/dev/null"),
        env=env,
        cwd=cwd,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    shown, answered = "", 0
    while chunk := await process.stdout.read(4096):
        shown += chunk.decode()
        if re.search(r"PIN[^\n]*: $", shown[answered:]):
            answered = len(shown)
            process.stdin.write(f"{PIN}\n".encode())
    assert await process.wait() == 0, shown
    return shown


@asynccontextmanager
async def _ground(root: Path) -> AsyncGenerator[Ground]:
    async with serving(root) as bus:
        await bus.enrol("pi-1")
        yield Ground(bus, root)
