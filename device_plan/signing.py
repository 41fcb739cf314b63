"""Signatures of plans: Ed25519 (RFC 8032) over digests of what a plan holds.

A signed plan has two kinds of signatures, by one key. Each variant's is over the
SHA-256 of its manifest, which names the graph's SHA-256: a device that has only
its device part verifies that. The archive's is over the names and SHA-256 of all
entries but the signatures: a server verifies that. What is signed begins with a
text of its own for each kind, so that neither can be taken for the other.

A signature's bytes are the key's identifier (the first 8 bytes of the SHA-256 of
the raw public key) and the 64 bytes of Ed25519. It is deterministic: signing the
same plan with the same key gives the same bytes. It changes neither manifests
nor graphs.
"""

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from device_plan.archive import DevicePart, PlanArchive

_MANIFEST_DOMAIN = b"nightshift/plan-manifest/1\n"
_ARCHIVE_DOMAIN = b"nightshift/plan-archive/1\n"

_KEY_ID_BYTES = 8
_SIGNATURE_BYTES = 64


class InvalidKey(ValueError):
    """A file is not the key it should be; the message says what to do."""


class NotTrusted(Exception):
    """The plan's signature does not verify; the message says why."""


class Unsigned(NotTrusted):
    """There is no signature."""


class UnknownKey(NotTrusted):
    """The signature is by a key that is not trusted here."""


class Altered(NotTrusted):
    """What was signed is not what is here."""


def create_key(path: Path) -> Ed25519PrivateKey:
    """Makes a key pair: `path` for its owner only, and `path`.pub for everybody.

    Raises:
        FileExistsError: one of the files is there already; nothing was written.
        OSError: they cannot be written.
    """
    public_path = public_key_path(path)
    for taken in (path, public_path):
        if taken.exists():
            raise FileExistsError(f"{taken} exists: a key is never overwritten")
    key = Ed25519PrivateKey.generate()
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
    public_path.write_bytes(public_pem(key.public_key()))
    return key


def public_key_path(private: Path) -> Path:
    """Where `create_key` leaves the public half."""
    return private.with_name(private.name + ".pub")


def public_pem(key: Ed25519PublicKey) -> bytes:
    return key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def is_private_key(path: Path) -> bool:
    """Whether a key's file looks like the private half. Raises InvalidKey if it cannot be read."""
    return b"PRIVATE KEY" in _read(path)


def load_private_key(path: Path) -> Ed25519PrivateKey:
    """Raises InvalidKey."""
    data = _read(path)
    if path.stat().st_mode & 0o077:
        raise InvalidKey(f"{path} may be read by others: run chmod 600 {path}")
    try:
        key = serialization.load_pem_private_key(data, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise InvalidKey(
            f"{path} is not an unencrypted private key in PEM form: make one with "
            f"`nightshift plan key new` ({error})"
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise InvalidKey(f"{path} is a key of another kind: plans are signed with Ed25519")
    return key


def load_public_key(path: Path) -> Ed25519PublicKey:
    """Raises InvalidKey."""
    data = _read(path)
    if is_private_key(path):
        raise InvalidKey(
            f"{path} is a private key, which only who signs plans may have: give its public "
            f"half, {public_key_path(path).name}"
        )
    try:
        key = serialization.load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise InvalidKey(f"{path} is not a public key in PEM form ({error})") from error
    if not isinstance(key, Ed25519PublicKey):
        raise InvalidKey(f"{path} is a key of another kind: plans are signed with Ed25519")
    return key


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidKey(f"cannot read the key {path}: {error.strerror}") from error


def key_id(key: Ed25519PublicKey) -> str:
    """16 hex digits by which people and signatures name a key."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[: 2 * _KEY_ID_BYTES]


def signed_by(signature: bytes) -> str:
    """The identifier of the key that a signature names; "" if there is no signature."""
    return signature[:_KEY_ID_BYTES].hex()


def sign(archive: PlanArchive, key: Ed25519PrivateKey) -> bytes:
    """The archive's bytes with its signatures, in place of any that it has."""
    mark = bytes.fromhex(key_id(key.public_key()))
    return archive.with_signatures(
        archive=mark + key.sign(_archive_message(archive)),
        variants=[mark + key.sign(_manifest_message(part)) for part in archive.variants],
    )


def verify_archive(archive: PlanArchive, trusted: Iterable[Ed25519PublicKey]) -> str:
    """Checks the archive's signature and those of its variants.

    Returns:
        The identifier of the key that signed the archive.

    Raises:
        Unsigned, UnknownKey, Altered: all of them NotTrusted.
    """
    keys = tuple(trusted)
    signer = _verify(archive.signature, _archive_message(archive), keys, "the plan")
    for part in archive.variants:
        verify_device_part(part, keys)
    return signer


def verify_device_part(part: DevicePart, trusted: Iterable[Ed25519PublicKey]) -> str:
    """Likewise of what a device downloads."""
    what = f"the plan's variant {part.variant!r}"
    return _verify(part.signature, _manifest_message(part), tuple(trusted), what)


def _manifest_message(part: DevicePart) -> bytes:
    return _MANIFEST_DOMAIN + hashlib.sha256(part.manifest_data).digest()


def _archive_message(archive: PlanArchive) -> bytes:
    # The order of the variants says which one a device gets, so it is signed too.
    variants = [part.variant for part in archive.variants]
    listed = [variants, sorted(archive.contents().items())]
    return _ARCHIVE_DOMAIN + json.dumps(listed, separators=(",", ":")).encode()


def _verify(
    signature: bytes, message: bytes, trusted: tuple[Ed25519PublicKey, ...], what: str
) -> str:
    if not signature:
        raise Unsigned(f"{what} is not signed: sign it with `nightshift plan sign`")
    signer = signed_by(signature)
    if len(signature) != _KEY_ID_BYTES + _SIGNATURE_BYTES:
        raise Altered(f"the signature of {what} is damaged: it has {len(signature)} bytes")
    candidates = [key for key in trusted if key_id(key) == signer]
    if not candidates:
        known = ", ".join(sorted(key_id(key) for key in trusted)) or "none"
        raise UnknownKey(f"{what} is signed by the unknown key {signer}; trusted: {known}")
    for key in candidates:
        try:
            key.verify(signature[_KEY_ID_BYTES:], message)
        except InvalidSignature:
            continue
        return signer
    raise Altered(f"{what} was altered after the key {signer} signed it")
