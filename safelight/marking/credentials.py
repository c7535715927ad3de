"""With what files are signed: a certificate of this home, or the studio's own.

The home's is made at the first signature and never leaves the volume. Its root signs that one
certificate and is thrown away. Keys are those whose signatures can be repeated, so that the same
run gives the same bytes: Ed25519, or ECDSA with the number of RFC 6979.
"""

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property, lru_cache
from pathlib import Path
from typing import cast

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from safelight.errors import InvalidFieldValueError, MissingFileError, MissingRequiredFieldError
from safelight.private import make_folder
from safelight.settings import Settings, settings
from safelight.store.disk import disk_errors, half_made
from safelight.store.places import named_once

FOLDER = "signing"
FILE = "identity.pem"
YEARS = 30
"""No clock of a third party says when a file was signed, so a certificate has to outlive it."""
Key = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey
_CURVES: dict[str, tuple[str, int, type[hashes.HashAlgorithm]]] = {
    "secp256r1": ("es256", 32, hashes.SHA256),
    "secp384r1": ("es384", 48, hashes.SHA384),
    "secp521r1": ("es512", 66, hashes.SHA512),
}


@dataclass(frozen=True)
class Credentials:
    """A key and the certificates that stand behind it."""

    chain: bytes
    """PEM, the signer's first."""
    key: Key
    """Of the first certificate."""

    @cached_property
    def algorithm(self) -> str:
        """As C2PA names it."""
        if isinstance(self.key, ed25519.Ed25519PrivateKey):
            return "ed25519"
        return _CURVES[self.key.curve.name][0]

    @cached_property
    def certificates(self) -> list[x509.Certificate]:
        """The chain, the signer's first."""
        return x509.load_pem_x509_certificates(self.chain)

    @property
    def anchor(self) -> bytes:
        """PEM of the last of the chain: whoever trusts it trusts these signatures."""
        return self.certificates[-1].public_bytes(serialization.Encoding.PEM)

    @property
    def fingerprint(self) -> bytes:
        """Of the signer's certificate."""
        return self.certificates[0].fingerprint(hashes.SHA256())

    @property
    def key_pem(self) -> bytes:
        """The key as C2PA's library takes it."""
        return _key_pem(self.key)

    def sign(self, data: bytes) -> bytes:
        """A signature as COSE holds it; the same data gives the same."""
        if isinstance(self.key, ed25519.Ed25519PrivateKey):
            return self.key.sign(data)
        _, size, digest = _CURVES[self.key.curve.name]
        signed = self.key.sign(data, ec.ECDSA(digest(), deterministic_signing=True))
        return b"".join(part.to_bytes(size, "big") for part in decode_dss_signature(signed))


def credentials() -> Credentials:
    """With what this process signs.

    Raises:
        PipelineError: the studio's certificate or key cannot be used, or the home's not be kept.
    """
    known = settings()
    studio = known.marking_certificate, known.marking_key
    return _credentials(known.volume_root.resolve(), *studio)


def known_credentials(known: Settings) -> Credentials | None:
    """The same, without making any; None where nothing was ever signed here."""
    if known.marking_certificate is None and not _file(known.volume_root.resolve()).is_file():
        return None
    return credentials()


@lru_cache(maxsize=4)
def _credentials(volume: Path, certificate: Path | None, key: Path | None) -> Credentials:
    if certificate is None and key is None:
        return _of_home(volume)
    if certificate is None or key is None:
        missing = "CERTIFICATE" if certificate is None else "KEY"
        raise MissingRequiredFieldError(
            "of the studio's certificate and its key only one is set",
            f"set SAFELIGHT_MARKING_{missing} too, or unset both",
        )
    return _parsed(_read(certificate), _read(key), f"{certificate.name} and {key.name}")


def _of_home(volume: Path) -> Credentials:
    file = _file(volume)
    with disk_errors(file):
        if not file.is_file():
            make_folder(file.parent)
            made = new_credentials()
            with half_made(file.parent) as half:
                half.touch(mode=0o600)
                half.write_bytes(made.key_pem + made.chain)
                named_once(half, file)  # else another process was first, and its own is taken
        data = file.read_bytes()
    return _parsed(data, data, file.name)


def _file(volume: Path) -> Path:
    return volume / FOLDER / FILE


def new_credentials() -> Credentials:
    """A certificate that names no person and no machine."""
    root, key = ed25519.Ed25519PrivateKey.generate(), ed25519.Ed25519PrivateKey.generate()
    name = secrets.token_hex(4)
    begins = datetime.now(UTC) - timedelta(days=1)  # for clocks that are slow
    issuer, subject = _named(f"Safelight root {name}"), _named(f"Safelight home {name}")
    above = (
        _begun(begins, issuer, issuer, root.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .sign(root, None)
    )
    known_by = x509.AuthorityKeyIdentifier.from_issuer_public_key(root.public_key())
    own = (
        _begun(begins, issuer, subject, key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False
        )
        .add_extension(known_by, critical=False)
        .sign(root, None)
    )
    pem = serialization.Encoding.PEM
    return Credentials(own.public_bytes(pem) + above.public_bytes(pem), key)


def _begun(
    begins: datetime, issuer: x509.Name, subject: x509.Name, key: ed25519.Ed25519PublicKey
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .issuer_name(issuer)
        .subject_name(subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(begins + timedelta(days=365 * YEARS))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _named(name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Safelight"),
            x509.NameAttribute(NameOID.COMMON_NAME, name),
        ]
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _read(path: Path) -> bytes:
    try:
        with disk_errors(path):
            return path.read_bytes()
    except MissingFileError as error:
        raise MissingFileError(
            f"no file at {path}, which is to sign",
            "correct SAFELIGHT_MARKING_CERTIFICATE and SAFELIGHT_MARKING_KEY, or unset both",
        ) from error


def _parsed(chain: bytes, key: bytes, names: str) -> Credentials:
    try:
        loaded = serialization.load_pem_private_key(key, None)
        certificates = x509.load_pem_x509_certificates(chain)
    except (ValueError, TypeError) as error:  # TypeError: the key has a password
        raise InvalidFieldValueError(
            f"{names} hold no certificates and key in PEM without a password: {error}",
            "export them as PEM, the signer's certificate first",
        ) from error
    curve = loaded.curve.name if isinstance(loaded, ec.EllipticCurvePrivateKey) else ""
    if not isinstance(loaded, ed25519.Ed25519PrivateKey) and curve not in _CURVES:
        raise InvalidFieldValueError(
            f"the key of {names} is of the kind {type(loaded).__name__} {curve}".rstrip()
            + ", expected Ed25519 or ECDSA on P-256, P-384 or P-521",
            "take a key whose signatures can be repeated: those of RSA in C2PA differ each time",
        )
    if certificates[0].public_key() != loaded.public_key():
        raise InvalidFieldValueError(
            f"the key of {names} is not that of the first certificate",
            "put the signer's own certificate first",
        )
    pem = serialization.Encoding.PEM
    return Credentials(b"".join(each.public_bytes(pem) for each in certificates), cast(Key, loaded))


def _key_pem(key: Key) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
