"""Ed25519 keys in PKCS#11 tokens (HSMs, smart cards, SoftHSM), through python-pkcs11.

A key is named as in RFC 7512: ``pkcs11:token=LABEL;object=LABEL?module-path=/usr/lib/.../module.so``; the module can
also come from SEKISHO_PKCS11_MODULE. The private key is made on the token, sensitive and not extractable. The key's
statement lies beside it as a data object, and as ``.pub`` file on disk.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from . import cose
from .errors import ToolError
from .keys import Passphrases, Statement, make_statement, read_statement, require

MODULE_VARIABLE = "SEKISHO_PKCS11_MODULE"
SCHEME = "pkcs11:"
_APPLICATION = "sekisho"
_ED25519 = bytes.fromhex("06032b6570")  # 1.3.101.112, RFC 8410
_PIN_COUNT_LOW, _PIN_FINAL_TRY, _PIN_LOCKED = 0x1_0000, 0x2_0000, 0x4_0000  # CKF_USER_PIN_*


@dataclass(frozen=True)
class TokenUri:
    """What a ``pkcs11:`` URI names; *key* is None where it names a token only."""

    module: str
    token: str
    key: str | None


def parse_uri(uri: str) -> TokenUri:
    """Read a ``pkcs11:`` URI. Raises ToolError KEY_URI."""
    path, _, query = uri.removeprefix(SCHEME).partition("?")
    try:
        attributes = {name: unquote(value) for name, value in (part.split("=", 1) for part in path.split(";") if part)}
        options = {name: unquote(value) for name, value in (part.split("=", 1) for part in query.split("&") if part)}
    except ValueError as error:
        raise ToolError("KEY_URI", f"{uri} does not read pkcs11:token=LABEL;object=LABEL.") from error
    if "token" not in attributes or set(attributes) - {"token", "object"} or set(options) - {"module-path"}:
        raise ToolError("KEY_URI", f"{uri} does not read pkcs11:token=LABEL;object=LABEL?module-path=FILE.")
    module = options.get("module-path") or os.environ.get(MODULE_VARIABLE)
    if not module:
        raise ToolError("KEY_URI", f"Name the PKCS#11 module: add ?module-path=FILE, or set {MODULE_VARIABLE}.")
    return TokenUri(module, attributes["token"], attributes.get("object"))


def _api() -> Any:
    try:
        import pkcs11
    except ImportError as error:
        raise ToolError("TOKEN", "PKCS#11 support is not installed; run pip install 'sekisho[pkcs11]'.") from error
    return pkcs11


def _token(uri: TokenUri) -> Any:
    pkcs11 = _api()
    try:
        return pkcs11.lib(uri.module).get_token(token_label=uri.token)
    except pkcs11.exceptions.NoSuchToken as error:
        raise ToolError("TOKEN", f"There is no token {uri.token!r} in the reader; plug it in.") from error
    except pkcs11.exceptions.MultipleTokensReturned as error:
        raise ToolError("TOKEN", f"Several tokens are called {uri.token!r}; plug in one of them.") from error
    except (pkcs11.exceptions.PKCS11Error, RuntimeError, OSError) as error:
        raise ToolError("TOKEN", f"Cannot use the PKCS#11 module {uri.module}: {_words(error)}.") from error


def _words(error: BaseException) -> str:
    return str(error) or type(error).__name__


_sessions: dict[tuple[str, str], Any] = {}  # a token takes one login per process


@contextmanager
def _errors(uri: TokenUri) -> Iterator[None]:
    """Turns what goes wrong on the token into ToolError TOKEN, and forgets the session."""
    pkcs11 = _api()
    try:
        yield
    except pkcs11.exceptions.PKCS11Error as error:
        _sessions.pop((uri.module, uri.token), None)
        raise ToolError(
            "TOKEN", f"The token {uri.token!r} failed or was removed ({_words(error)}); nothing was signed."
        ) from error


def _login(uri: TokenUri, passphrases: Passphrases) -> Any:
    """A session with the user logged in. A wrong PIN is told with what the token says of tries left; never retried."""
    session = _sessions.get((uri.module, uri.token))
    if session is not None:
        return session
    pkcs11 = _api()
    token = _token(uri)
    if token.flags & _PIN_LOCKED:
        raise ToolError("PIN_LOCKED", f"The PIN of the token {uri.token!r} is locked; its security officer resets it.")
    if token.flags & _PIN_FINAL_TRY:
        raise ToolError(
            "PIN_FINAL_TRY", f"The token {uri.token!r} has one PIN try left; spend it with the vendor's tool, not here."
        )
    before = "; a wrong one was entered before" if token.flags & _PIN_COUNT_LOW else ""
    pin = passphrases.get(f"token {uri.token} (PIN{before})").decode(errors="replace")
    try:
        session = token.open(rw=True, user_pin=pin)
    except (pkcs11.exceptions.PinIncorrect, pkcs11.exceptions.PinLenRange, pkcs11.exceptions.PinInvalid) as error:
        left = _tries(_token(uri).flags)
        raise ToolError(
            "PIN", f"The token {uri.token!r} does not take this PIN, and it was tried once only; {left}."
        ) from error
    except pkcs11.exceptions.PinLocked as error:
        raise ToolError("PIN_LOCKED", f"The PIN of the token {uri.token!r} is locked.") from error
    except pkcs11.exceptions.PKCS11Error as error:
        raise ToolError("TOKEN", f"Cannot log in to the token {uri.token!r}: {_words(error)}.") from error
    _sessions[uri.module, uri.token] = session
    return session


def _tries(flags: int) -> str:
    """What a token tells after a wrong PIN: PKCS#11 has three flags for it (CKF_USER_PIN_*), and no number."""
    if flags & _PIN_LOCKED:
        return "that was the last try, it is locked now and its security officer resets it"
    if flags & _PIN_FINAL_TRY:
        return "ONE try is left before it locks"
    if flags & _PIN_COUNT_LOW:
        return "wrong PINs since the last right one: at least 1 (tokens tell no number, only when one try is left)"
    return "it tells nothing of the tries that are left, so look into its manual before the next one"


def close() -> None:
    """End all sessions, which logs out."""
    while _sessions:
        _sessions.popitem()[1].close()


class TokenSigner:
    """The Signer of a key on a token."""

    def __init__(self, uri: TokenUri, private: Any, statement: Statement) -> None:
        self._uri = uri
        self._private = private
        self.statement = statement
        self.public_key = statement.public_key
        self.key_id = statement.key_id

    def sign(self, data: bytes) -> bytes:
        """The 64-byte Ed25519 signature of *data*, made on the token. Raises ToolError TOKEN."""
        with _errors(self._uri):
            return bytes(self._private.sign(data, mechanism=_api().Mechanism.EDDSA))


def _name(uri: TokenUri) -> str:
    if uri.key is None:
        raise ToolError("KEY_URI", "The URI names a token but no key; add ;object=LABEL.")
    return uri.key


def _private_key(uri: TokenUri, session: Any) -> Any:
    pkcs11 = _api()
    found = list(session.get_objects({pkcs11.Attribute.CLASS: pkcs11.ObjectClass.PRIVATE_KEY, **_label(uri)}))
    if len(found) != 1:
        many = "no key" if not found else "several keys"
        raise ToolError("KEY_UNKNOWN", f"The token {uri.token!r} holds {many} called {_name(uri)!r}.")
    return found[0]


def _label(uri: TokenUri) -> dict[Any, Any]:
    return {_api().Attribute.LABEL: _name(uri)}


def statements(uri: TokenUri) -> list[Statement]:
    """The statements on a token, of the one key or of all; no PIN is needed."""
    pkcs11 = _api()
    wanted = {
        pkcs11.Attribute.CLASS: pkcs11.ObjectClass.DATA,
        pkcs11.Attribute.APPLICATION: _APPLICATION,
        **(_label(uri) if uri.key is not None else {}),
    }
    token = _token(uri)
    with _errors(uri):
        session = _sessions.get((uri.module, uri.token))
        if session is not None:
            found = [bytes(one[pkcs11.Attribute.VALUE]) for one in session.get_objects(wanted)]
        else:
            with token.open() as session:
                found = [bytes(one[pkcs11.Attribute.VALUE]) for one in session.get_objects(wanted)]
    return [read_statement(one, f"statement on the token {uri.token!r}") for one in found]


def statement(uri: TokenUri) -> Statement:
    """The statement of one key on a token."""
    found = statements(uri)
    if len(found) != 1:
        raise ToolError("KEY_UNKNOWN", f"The token {uri.token!r} holds no Sekisho key called {_name(uri)!r}.")
    return found[0]


def open_signer(name: str, passphrases: Passphrases, role: str | None, environment: str | None) -> TokenSigner:
    """The key that the URI *name* names, logged in. Raises ToolError: see `keys.open_signer`, and TOKEN, PIN."""
    uri = parse_uri(name)
    told = statement(uri)
    require(told, role, environment)
    session = _login(uri, passphrases)
    with _errors(uri):
        signer = TokenSigner(uri, _private_key(uri, session), told)
        challenge = b"sekisho key check\0" + os.urandom(16)
        if not cose.verify(told.public_key, challenge, signer.sign(challenge)):
            raise ToolError("KEY_STATEMENT", f"The key {_name(uri)!r} on the token is not the one its statement names.")
    return signer


def generate(name: str, role: str, environment: str, label: str | None, passphrases: Passphrases) -> Statement:
    """Make a key on the token that the URI *name* names; it never leaves the token."""
    pkcs11 = _api()
    uri = parse_uri(name)
    key = _name(uri)
    session = _login(uri, passphrases)
    with _errors(uri):
        if list(session.get_objects(_label(uri))):
            raise ToolError("KEY_EXISTS", f"The token {uri.token!r} has a {key!r} already; a key is never overwritten.")
        curve = session.create_domain_parameters(
            pkcs11.KeyType.EC_EDWARDS, {pkcs11.Attribute.EC_PARAMS: _ED25519}, local=True
        )
        public, private = curve.generate_keypair(
            mechanism=pkcs11.Mechanism.EC_EDWARDS_KEY_PAIR_GEN, store=True, label=key
        )
        try:
            told = make_statement(_Fresh(uri, public, private), label or key, role, environment)
            session.create_object(
                {
                    pkcs11.Attribute.CLASS: pkcs11.ObjectClass.DATA,
                    pkcs11.Attribute.TOKEN: True,
                    pkcs11.Attribute.PRIVATE: False,
                    pkcs11.Attribute.APPLICATION: _APPLICATION,
                    pkcs11.Attribute.LABEL: key,
                    pkcs11.Attribute.VALUE: told.to_json(indent=None).encode(),
                }
            )
        except BaseException:
            private.destroy()
            public.destroy()
            raise
    return told


class _Fresh:
    """The Signer of a key that has no statement yet."""

    def __init__(self, uri: TokenUri, public: Any, private: Any) -> None:
        point = bytes(public[_api().Attribute.EC_POINT])
        self.public_key = point[-32:]  # with or without the head of an OCTET STRING
        self.key_id = cose.key_id(self.public_key)
        self._uri, self._private = uri, private

    def sign(self, data: bytes) -> bytes:
        """The 64-byte Ed25519 signature of *data*."""
        return bytes(self._private.sign(data, mechanism=_api().Mechanism.EDDSA))


def destroy(name: str, key_id: str, passphrases: Passphrases) -> Statement:
    """Remove the key that the URI *name* names, whose key id must be *key_id*, from its token."""
    uri = parse_uri(name)
    told = statement(uri)
    if told.key_id.hex() != key_id.lower():
        raise ToolError("KEY_UNKNOWN", f"{_name(uri)!r} is the key {told.key_id.hex()}, not {key_id}; nothing done.")
    session = _login(uri, passphrases)
    with _errors(uri):
        for one in list(session.get_objects(_label(uri))):
            one.destroy()
    return told
