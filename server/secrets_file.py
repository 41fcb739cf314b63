"""The server's own secrets, made at its first start, readable by its owner only."""

import json
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path

#: The file's name in the data directory.
FILE_NAME = "secrets.json"


@dataclass(frozen=True, kw_only=True)
class ServerSecrets:
    """Attributes:
    session_key: Signs session tokens.
    admin_token: The operator's bearer token.
    """

    session_key: bytes = field(repr=False)
    admin_token: str = field(repr=False)

    @classmethod
    def load(cls, data_dir: Path) -> "ServerSecrets":
        """Raises FileNotFoundError: no server has run with this data directory."""
        return cls.load_file(data_dir / FILE_NAME)

    @classmethod
    def load_file(cls, path: Path) -> "ServerSecrets":
        """Raises FileNotFoundError, ValueError: it is not a file of secrets."""
        try:
            values = json.loads(path.read_text())
            return cls(
                session_key=bytes.fromhex(values["session_key"]), admin_token=values["admin_token"]
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is not a file of secrets: {error!r}") from error

    @classmethod
    def load_or_create(cls, data_dir: Path) -> "ServerSecrets":
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = data_dir / FILE_NAME
        if not path.exists():
            values = {
                "session_key": secrets.token_hex(32),
                "admin_token": secrets.token_urlsafe(32),
            }
            temporary = path.with_suffix(f".{os.getpid()}")
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as file:
                json.dump(values, file)
                file.flush()
                os.fsync(file.fileno())
            try:
                # Of two servers that start at once one wins, and both use its secrets.
                os.link(temporary, path)
            except FileExistsError:
                pass
            finally:
                temporary.unlink()
        return cls.load(data_dir)
