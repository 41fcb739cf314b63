import base64
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

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


@given(st.integers(0, 1000), st.text(max_size=40))
def test_a_sessions_seed_is_three_numbers_from_1_to_30000(index: int, session_id: str):
    seed = Identity.virtual(seed=1, index=index).session_seed(session_id)
    assert seed.dtype == np.int32
    assert seed.shape == (3,)
    assert ((seed >= 1) & (seed <= 30_000)).all()


def test_a_seed_differs_between_devices_and_sessions_and_is_the_same_when_repeated():
    def seed(index: int, session_id: str) -> tuple[int, ...]:
        return tuple(Identity.virtual(seed=1, index=index).session_seed(session_id).tolist())

    seeds = {seed(index, f"session-{number}") for index in range(20) for number in range(20)}
    assert len(seeds) == 400
    assert seed(3, "session-4") == seed(3, "session-4")


def test_seeds_are_spread_over_their_whole_range():
    identity = Identity.virtual(seed=1, index=1)
    seeds = np.concatenate([identity.session_seed(f"session-{n}") for n in range(3000)])
    # The mean of 9000 uniform draws is within 4 standard errors (91) of 15000.5.
    assert abs(seeds.mean() - 15_000.5) < 4 * 30_000 / np.sqrt(12 * 9000)


def test_the_key_does_not_show_in_a_representation():
    identity = Identity.virtual(seed=1, index=1)
    assert identity.credential not in repr(identity)
