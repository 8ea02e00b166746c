"""TLS for the server: certificate and key from files, or the key in a PKCS#11 token (UPD07).

Python's `ssl` takes private keys from PEM files only. So for a token the calls it lacks are made on the very OpenSSL
that it is linked to: the engine `pkcs11` (libp11) loads a handle of the key, the handle goes into the context. The key
never leaves the token; signing for a handshake happens there. docs/decisions/0006 says why it is done so.
"""

from __future__ import annotations

import os
import ssl
import sys
from ctypes import CDLL, c_char_p, c_int, c_size_t, c_uint64, c_ulong, c_void_p, create_string_buffer
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ..errors import ToolError
from ..files import read_file, why
from ..pkcs11_keys import SCHEME, parse_uri

PIN_VARIABLE = "SEKISHO_TLS_PIN"
MAX_PIN = 256
NEWEST_PYTHON = (3, 14)
"""The newest Python whose `SSLContext` is known to begin with the pointer that is read here."""


def context(certificate: Path | None, key: str | None, pin_file: Path | None = None) -> ssl.SSLContext | None:
    """The server's side of TLS 1.2 or newer; None without a certificate.

    *certificate*: PEM chain. *key*: a PEM file, or ``pkcs11:token=LABEL;object=LABEL?module-path=FILE`` with the PIN in
    *pin_file* or SEKISHO_TLS_PIN. Raises ToolError TLS, KEY_URI, FILE.
    """
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise ToolError("TLS", "Give both --tls-cert and --tls-key, or neither.")
    made = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    if key.startswith(SCHEME):
        _from_token(made, certificate, key, _pin(pin_file))
        return made
    try:
        made.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        words = why(error) if isinstance(error, OSError) and not isinstance(error, ssl.SSLError) else str(error)
        raise ToolError("TLS", f"Cannot use {certificate} with {key}: {words}.") from error
    return made


def _pin(file: Path | None) -> bytes:
    if file is not None:
        return read_file(file, "PIN", MAX_PIN).rstrip(b"\r\n")
    given = os.environ.get(PIN_VARIABLE)
    if not given:
        raise ToolError("TLS", f"The token's PIN is needed: --tls-pin-file FILE, or {PIN_VARIABLE}.")
    return given.encode()


_CALLS: tuple[tuple[str, Any, tuple[Any, ...]], ...] = (
    ("ENGINE_load_builtin_engines", None, ()),
    ("ENGINE_by_id", c_void_p, (c_char_p,)),
    ("ENGINE_ctrl_cmd_string", c_int, (c_void_p, c_char_p, c_char_p, c_int)),
    ("ENGINE_init", c_int, (c_void_p,)),
    ("ENGINE_load_private_key", c_void_p, (c_void_p, c_char_p, c_void_p, c_void_p)),
    ("SSL_CTX_get_options", c_uint64, (c_void_p,)),
    ("SSL_CTX_use_certificate_chain_file", c_int, (c_void_p, c_char_p)),
    ("SSL_CTX_use_PrivateKey", c_int, (c_void_p, c_void_p)),
    ("SSL_CTX_check_private_key", c_int, (c_void_p,)),
    ("EVP_PKEY_free", None, (c_void_p,)),
    ("ERR_get_error", c_ulong, ()),
    ("ERR_error_string_n", None, (c_ulong, c_char_p, c_size_t)),
)
"""What is called of OpenSSL: name, result, arguments."""


def _openssl() -> CDLL:
    """The OpenSSL that Python's `ssl` is linked to. Raises ToolError TLS where it cannot be reached."""
    import _ssl

    if sys.implementation.name != "cpython" or sys.version_info[:2] > NEWEST_PYTHON:
        raise ToolError("TLS", "A TLS key in a token needs CPython up to 3.14; put a proxy in front instead.")
    try:
        library = CDLL(_ssl.__file__)
        for name, result, arguments in _CALLS:
            call = getattr(library, name)
            call.restype, call.argtypes = result, arguments
    except (AttributeError, OSError) as error:
        raise ToolError("TLS", "This Python brings an OpenSSL without engines; put a proxy in front.") from error
    return library


def _need(library: CDLL, done: int | None, what: str) -> int:
    """*done* if it is not 0; else ToolError TLS with OpenSSL's own words."""
    if done:
        return done
    words = ""
    while code := library.ERR_get_error():
        buffer = create_string_buffer(256)
        library.ERR_error_string_n(code, buffer, len(buffer))
        words = buffer.value.decode("ascii", "replace").rpartition(":")[2]
    raise ToolError("TLS", f"{what}{f' ({words})' if words else ''}.")


def _from_token(made: ssl.SSLContext, certificate: Path, uri: str, pin: bytes) -> None:
    """Put *certificate* and the token's key into *made*."""
    named = parse_uri(uri)
    if named.key is None:
        raise ToolError("KEY_URI", f"{uri} names no object=LABEL.")
    read_file(certificate, "certificate")  # for a plain sentence where it is missing
    library = _openssl()
    need = partial(_need, library)
    # An SSLContext is the head of every Python object, then the pointer to OpenSSL's context.
    inner = c_void_p.from_address(id(made) + object.__basicsize__).value
    if inner is None or library.SSL_CTX_get_options(inner) != made.options:
        raise ToolError("TLS", "This Python keeps its TLS context elsewhere; put a proxy in front.")
    library.ENGINE_load_builtin_engines()
    engine = need(
        library.ENGINE_by_id(b"pkcs11"),
        "OpenSSL has no engine pkcs11 (Debian: apt-get install libengine-pkcs11-openssl)",
    )
    command = library.ENGINE_ctrl_cmd_string
    need(command(engine, b"MODULE_PATH", os.fsencode(named.module), 0), f"Cannot use {named.module}")
    need(command(engine, b"PIN", pin, 0), "The PIN cannot be used")
    need(library.ENGINE_init(engine), f"The module {named.module} does not start")
    name = f"pkcs11:token={quote(named.token)};object={quote(named.key)};type=private"
    key = need(
        library.ENGINE_load_private_key(engine, name.encode(), None, None),
        f"The token {named.token!r} gives no key {named.key!r}: is it there, and the PIN right?",
    )
    try:
        chain = library.SSL_CTX_use_certificate_chain_file(inner, os.fsencode(certificate))
        need(chain, f"Cannot read the certificate {certificate}")
        need(library.SSL_CTX_use_PrivateKey(inner, key), f"{certificate} and the token's key do not fit")
        need(library.SSL_CTX_check_private_key(inner), f"{certificate} and the token's key do not fit")
    finally:
        library.EVP_PKEY_free(key)
