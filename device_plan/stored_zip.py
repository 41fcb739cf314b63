"""Zip files of stored entries: readable by any zip program, the same bytes every time."""

import io
import zipfile
from collections.abc import Mapping

#: Bytes of one entry above which a file is refused.
MAX_ENTRY_BYTES = 1 << 30


class MalformedZip(ValueError):
    """The bytes are not such a file; the message says why."""


def pack(entries: Mapping[str, bytes]) -> bytes:
    """The file with these entries, in their order."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in entries.items():
            # A fixed time and mode: equal entries give equal bytes.
            info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            info.external_attr = 0o644 << 16
            archive.writestr(info, data)
    return buffer.getvalue()


def unpack(data: bytes) -> dict[str, bytes]:
    """Name and content of each entry, in their order. Raises MalformedZip."""
    entries: dict[str, bytes] = {}
    read = 0
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for info in archive.infolist():
                name = info.filename
                if name in entries:
                    raise MalformedZip(f"there are two entries {name!r}")
                if info.compress_type != zipfile.ZIP_STORED or info.file_size > MAX_ENTRY_BYTES:
                    raise MalformedZip(f"entry {name!r} is compressed or larger than 1 GiB")
                read += info.file_size
                if read > len(data):
                    raise MalformedZip("entries overlap")
                entries[name] = archive.read(info)
    except MalformedZip:
        raise
    except Exception as error:
        # For damaged input zipfile raises besides BadZipFile also ValueError,
        # RuntimeError, struct.error and others, as it happens.
        raise MalformedZip(str(error)) from error
    return entries
