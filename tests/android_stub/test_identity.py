import base64
from pathlib import Path

import pytest

from android_stub.identity import Identity


def test_a_key_is_made_once_and_readable_by_its_owner_only(tmp_path: Path):
    path = tmp_path / "device.key"
    first = Identity.load_or_create(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert Identity.load_or_create(path).credential == first.credential
    assert Identity.load_or_create(tmp_path / "other.key").credential != first.credential


def test_the_credential_is_32_bytes_in_base64url_without_padding():
    credential = Identity.virtual(seed=1, index=2).credential
    assert "=" not in credential
    assert len(base64.urlsafe_b64decode(credential + "=")) == 32


def test_virtual_keys_follow_from_seed_and_index():
    keys = {Identity.virtual(seed=s, index=i).credential for s in range(3) for i in range(3)}
    assert len(keys) == 9
    assert Identity.virtual(seed=1, index=2).credential in keys


def test_a_key_that_others_may_read_is_refused(tmp_path: Path):
    path = tmp_path / "device.key"
    Identity.load_or_create(path)
    path.chmod(0o644)
    with pytest.raises(PermissionError, match="chmod 600"):
        Identity.load_or_create(path)


def test_a_file_that_is_no_key_is_named(tmp_path: Path):
    path = tmp_path / "device.key"
    path.write_bytes(b"short")
    path.chmod(0o600)
    with pytest.raises(ValueError, match=r"device\.key is not a device key"):
        Identity.load_or_create(path)


def test_the_key_does_not_show_in_a_representation():
    identity = Identity.virtual(seed=1, index=1)
    assert identity.credential not in repr(identity)
