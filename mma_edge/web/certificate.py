"""The certificate of a server that other machines reach: the user's own, or one that is made here."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import os
import ssl
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mma_edge.errors import OutputError, UsageError
from mma_edge.files import replaced, state_root
from mma_edge.web.binding import Binding, machine_names, outgoing_address

FILE = "certificate.pem"
_DAYS, _RENEW_DAYS = 397, 30
"""Browsers refuse certificates that are valid for longer; one that ends sooner than in so many days is made anew."""


@dataclass(frozen=True)
class Certificate:
    """What a server proves itself with."""

    context: ssl.SSLContext
    fingerprint: str  # SHA-256, as browsers show it
    names: tuple[str, ...]  # the DNS names that it holds


def given(cert: Path, key: Path | None) -> Certificate:
    """The user's own, PEM; `key` None: it is in the same file. UsageError where they do not work."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    expected, hint = "a certificate and its key in PEM", "--tls-cert CERT.pem --tls-key KEY.pem"
    try:
        # Without a password of its own OpenSSL would ask for one at the terminal.
        context.load_cert_chain(cert, key, password=lambda: "")
        return _described(context, cert.read_bytes())
    except ssl.SSLError as error:
        reason = (error.reason or "no PEM").replace("_", " ").lower()
        raise UsageError(f"--tls-cert {cert}: {reason}", f"{expected}, not encrypted", hint) from error
    except OSError as error:
        raise UsageError(f"--tls-cert {cert}: {error.strerror or error}", expected, hint) from error
    except ValueError as error:
        raise UsageError(f"--tls-cert {cert} holds no certificate", expected, hint) from error


def made(binding: Binding) -> Certificate:
    """One that this machine has signed for itself, kept in the user's state folder; OutputError where that fails."""
    path = state_root() / FILE
    addresses = {outgoing_address() or "127.0.0.1", "127.0.0.1", "::1"} | (
        set() if binding.everywhere else {binding.address}
    )
    if not _fits(path, addresses):
        try:
            write_secret(path, _new_pem(addresses))
        except OSError as error:
            hint = "give one: --tls-cert CERT.pem --tls-key KEY.pem"
            raise OutputError(f"cannot write {path}: {error.strerror}", "a folder for the certificate", hint) from error
    return given(path, None)


def write_secret(path: Path, text: bytes) -> None:
    """Write a file that only its owner may read, from its first byte on, in a folder that is made if need be."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with replaced(path) as aside:
        with contextlib.suppress(FileNotFoundError):
            aside.unlink()
        with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(text)


def _described(context: ssl.SSLContext, pem: bytes) -> Certificate:
    certificate = x509.load_pem_x509_certificate(pem)
    return Certificate(
        context, certificate.fingerprint(hashes.SHA256()).hex(":").upper(), _names(certificate, x509.DNSName)
    )


def _names(certificate: x509.Certificate, kind: type[x509.GeneralName]) -> tuple[str, ...]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    return tuple(str(value).lower() for value in found.get_values_for_type(kind))


def _fits(path: Path, addresses: set[str]) -> bool:
    """Whether the file holds a certificate for these addresses that will do for a while, and was always secret."""
    try:
        if os.name == "posix" and path.stat().st_mode & 0o077:
            return False
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError):
        return False
    left = certificate.not_valid_after_utc - datetime.datetime.now(datetime.timezone.utc)
    return left.days >= _RENEW_DAYS and addresses <= set(_names(certificate, x509.IPAddress))


def _new_pem(addresses: set[str]) -> bytes:
    """Key and certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mma-edge on this machine")])
    now = datetime.datetime.now(datetime.timezone.utc)
    alternatives = [x509.DNSName(each) for each in ("localhost", *machine_names())]
    alternatives += [x509.IPAddress(ipaddress.ip_address(each)) for each in sorted(addresses)]
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=_DAYS - 1))
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    return key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain) + certificate.public_bytes(pem)
