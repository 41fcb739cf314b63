import hashlib
import io
import stat
import zipfile
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from device_plan.archive import DevicePart, MalformedPlan, PlanArchive, write_archive
from device_plan.plan_pb2 import PlanManifest, ServerPart
from device_plan.signing import (
    Altered,
    InvalidKey,
    NotTrusted,
    UnknownKey,
    Unsigned,
    create_key,
    key_id,
    load_private_key,
    load_public_key,
    sign,
    signed_by,
    verify_archive,
    verify_device_part,
)

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(32))
TRUSTED = [KEY.public_key()]


def plan(name: str = "digits") -> PlanArchive:
    parts = [
        DevicePart(manifest=PlanManifest(name=name, variant=variant), graph=variant.encode())
        for variant in ("modern", "legacy")
    ]
    return PlanArchive(
        write_archive(
            variants=parts,
            training=ServerPart(),
            evaluation=ServerPart(),
            initial_state=b"state",
            initial_checkpoint=b"checkpoint",
            checks={"passed": True},
            schedule={},
        )
    )


SIGNED = sign(plan(), KEY)


def with_entry(data: bytes, name: str, content: bytes | None) -> bytes:
    """The zip with one entry replaced, added, or removed (None)."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = {entry: archive.read(entry) for entry in archive.namelist()}
    entries[name] = content or b""
    if content is None:
        del entries[name]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for entry, held in entries.items():
            archive.writestr(entry, held)
    return buffer.getvalue()


def test_a_signed_plan_verifies_and_says_who_signed_it() -> None:
    archive = PlanArchive(SIGNED)
    raw = KEY.public_key().public_bytes_raw()
    assert verify_archive(archive, TRUSTED) == hashlib.sha256(raw).hexdigest()[:16]
    assert signed_by(archive.signature) == key_id(KEY.public_key())
    for part in archive.variants:
        received = DevicePart.from_bytes(part.to_bytes())
        assert verify_device_part(received, [OTHER.public_key(), *TRUSTED])


def test_signing_changes_neither_manifests_nor_graphs_nor_anything_else() -> None:
    before, after = plan(), PlanArchive(SIGNED)
    assert after.contents() == before.contents()
    for old, new in zip(before.variants, after.variants, strict=True):
        assert (new.manifest_data, new.graph) == (old.manifest_data, old.graph)


def test_the_same_plan_and_key_give_the_same_bytes_also_if_it_was_signed_before() -> None:
    assert sign(plan(), KEY) == SIGNED
    assert sign(PlanArchive(sign(plan(), OTHER)), KEY) == SIGNED
    assert sign(PlanArchive(SIGNED), KEY) == SIGNED


def test_the_signature_of_a_manifest_is_plain_ed25519_over_the_documented_message() -> None:
    (part, _) = PlanArchive(SIGNED).variants
    message = b"nightshift/plan-manifest/1\n" + hashlib.sha256(part.manifest_data).digest()
    ed25519.Ed25519PublicKey.from_public_bytes(KEY.public_key().public_bytes_raw()).verify(
        part.signature[8:], message
    )


def test_an_unsigned_plan_is_refused_as_unsigned() -> None:
    with pytest.raises(Unsigned, match="not signed"):
        verify_archive(plan(), TRUSTED)
    with pytest.raises(Unsigned, match="'modern' is not signed"):
        verify_device_part(plan().variants[0], TRUSTED)


def test_a_plan_signed_by_somebody_else_names_their_key() -> None:
    archive = PlanArchive(sign(plan(), OTHER))
    stranger = key_id(OTHER.public_key())
    with pytest.raises(UnknownKey, match=f"unknown key {stranger}; trusted: "):
        verify_archive(archive, TRUSTED)
    with pytest.raises(UnknownKey, match="trusted: none"):
        verify_device_part(archive.variants[0], [])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("checks.json", b'{"passed": false}'),
        ("server/state.safetensors", b"another state"),
        ("schedule.json", None),
        ("provenance.json", b'{"author": "eve"}'),
        ("an/entry/more", b""),
        ("manifest.signature", None),
        ("signature", b"short"),
        ("variants/legacy/manifest.signature", b""),
    ],
)
def test_an_archive_with_any_entry_changed_added_or_removed_is_refused(
    name: str, content: bytes | None
) -> None:
    with pytest.raises((NotTrusted, MalformedPlan)):
        verify_archive(PlanArchive(with_entry(SIGNED, name, content)), TRUSTED)


def test_an_archive_whose_variants_were_swapped_is_refused() -> None:
    with zipfile.ZipFile(io.BytesIO(SIGNED)) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    swapped = {
        name.replace("variants/legacy/", "variants/modern/"): data for name, data in entries.items()
    }
    for name in ("manifest.pb", "training.tflite", "manifest.signature"):
        swapped[name] = entries[f"variants/legacy/{name}"]
        swapped[f"variants/modern/{name}"] = entries[name]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in swapped.items():
            archive.writestr(name, data)
    swapped_plan = PlanArchive(buffer.getvalue())
    assert [part.variant for part in swapped_plan.variants] == ["legacy", "modern"]
    with pytest.raises(Altered):
        verify_archive(swapped_plan, TRUSTED)


def test_a_device_part_with_another_manifest_is_refused() -> None:
    (part, _) = PlanArchive(SIGNED).variants
    manifest = PlanManifest()
    manifest.CopyFrom(part.manifest)
    manifest.epochs = 1000
    altered = DevicePart(manifest=manifest, graph=part.graph, signature=part.signature)
    with pytest.raises(Altered, match="altered after the key"):
        verify_device_part(DevicePart.from_bytes(altered.to_bytes()), TRUSTED)


def test_the_archives_signature_is_none_of_a_manifest() -> None:
    archive = PlanArchive(SIGNED)
    (part, _) = archive.variants
    confused = DevicePart(manifest=part.manifest, graph=part.graph, signature=archive.signature)
    with pytest.raises(Altered):
        verify_device_part(confused, TRUSTED)


@given(st.integers(0, 71), st.integers(1, 255))
def test_a_signature_with_any_byte_changed_is_refused(at: int, by: int) -> None:
    (part, _) = PlanArchive(SIGNED).variants
    damaged = bytearray(part.signature)
    damaged[at] ^= by
    with pytest.raises((UnknownKey, Altered)):
        verify_device_part(
            DevicePart(manifest=part.manifest, graph=part.graph, signature=bytes(damaged)), TRUSTED
        )


def test_a_new_key_is_for_its_owner_only_and_both_halves_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "plans.pem"
    key = create_key(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_private_key(path).private_bytes_raw() == key.private_bytes_raw()
    public = load_public_key(tmp_path / "plans.pem.pub")
    assert key_id(public) == key_id(key.public_key())


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    create_key(tmp_path / "a.pem")
    before = (tmp_path / "a.pem").read_bytes()
    with pytest.raises(FileExistsError, match="never overwritten"):
        create_key(tmp_path / "a.pem")
    assert (tmp_path / "a.pem").read_bytes() == before


def test_a_file_that_is_no_key_or_another_kind_of_key_says_so(tmp_path: Path) -> None:
    create_key(tmp_path / "a.pem")
    (tmp_path / "letter").write_text("Dear Sir or Madam")
    (tmp_path / "letter").chmod(0o600)
    for load in (load_private_key, load_public_key):
        with pytest.raises(InvalidKey, match="PEM form"):
            load(tmp_path / "letter")
        with pytest.raises(InvalidKey, match="cannot read"):
            load(tmp_path / "missing")
    with pytest.raises(InvalidKey, match=r"public half, a\.pem\.pub"):
        load_public_key(tmp_path / "a.pem")
    another = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    (tmp_path / "rsa.pem").write_bytes(
        another.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    (tmp_path / "rsa.pem").chmod(0o600)
    with pytest.raises(InvalidKey, match="Ed25519"):
        load_private_key(tmp_path / "rsa.pem")


def test_a_private_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    create_key(tmp_path / "a.pem")
    (tmp_path / "a.pem").chmod(0o644)
    with pytest.raises(InvalidKey, match="chmod 600"):
        load_private_key(tmp_path / "a.pem")
