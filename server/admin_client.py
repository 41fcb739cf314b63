"""A server's admin API, as the command line calls it."""

import json
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import urllib3

from server.secrets_file import ServerSecrets

#: Seconds to connect, and to wait for an answer (a plan archive takes its time).
TIMEOUT = urllib3.Timeout(connect=5.0, read=120.0)


class AdminError(RuntimeError):
    """The server could not be reached, or refused; the message says why."""


class AdminClient:
    """Calls /v1/admin of one server.

    Args:
        url: e.g. "http://127.0.0.1:8750".
        token: The server's admin token.
    """

    def __init__(self, *, url: str, token: str) -> None:
        self._url = url.rstrip("/")
        self._token = token
        self._pool = urllib3.PoolManager(timeout=TIMEOUT, retries=False)

    @classmethod
    def of_data_dir(cls, *, url: str, data_dir: Path) -> "AdminClient":
        """With the token in a server's data directory.

        Raises:
            AdminError: no server has run with that directory.
        """
        try:
            token = ServerSecrets.load(data_dir).admin_token
        except OSError as error:
            raise AdminError(
                f"no admin token in {data_dir}: give --admin-token, or the --data-dir of the "
                f"server ({error.strerror})"
            ) from error
        return cls(url=url, token=token)

    def get(self, path: str) -> dict[str, Any]:
        """Raises AdminError."""
        answer: dict[str, Any] = json.loads(self._request("GET", path))
        return answer

    def get_bytes(self, path: str) -> bytes:
        """Raises AdminError."""
        return self._request("GET", path)

    def post(self, path: str, body: bytes = b"") -> dict[str, Any]:
        """Raises AdminError."""
        answer: dict[str, Any] = json.loads(self._request("POST", path, body))
        return answer

    def delete(self, path: str) -> dict[str, Any]:
        """Raises AdminError."""
        answer: dict[str, Any] = json.loads(self._request("DELETE", path))
        return answer

    def create_tasks(
        self, plan: bytes, *, rounds: int | None = None, goal_count: int | None = None
    ) -> dict[str, Any]:
        """Deploys a plan archive.

        Args:
            plan: The archive.
            rounds: Rounds to commit, instead of what the plan's author wished.
            goal_count: Updates that complete a training round, likewise.

        Returns:
            {"tasks": those created, the training task first; "warnings": sentences}.

        Raises:
            AdminError
        """
        wishes = {"rounds": rounds, "goal_count": goal_count}
        query = urlencode({name: value for name, value in wishes.items() if value is not None})
        return self.post(f"tasks?{query}", plan)

    def _request(self, method: str, path: str, body: bytes = b"") -> bytes:
        try:
            response = self._pool.request(
                method,
                f"{self._url}/v1/admin/{path}",
                body=body or None,
                headers={"Authorization": f"Bearer {self._token}"},
            )
        except urllib3.exceptions.HTTPError as error:
            raise AdminError(f"cannot reach the server at {self._url}: {error}") from error
        if response.status >= 400:
            try:
                why = json.loads(response.data)["error"]
            except (ValueError, KeyError, TypeError):
                why = response.data[:200].decode(errors="replace")
            raise AdminError(f"{self._url} answered {response.status}: {why}")
        return response.data
