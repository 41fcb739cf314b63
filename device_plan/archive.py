"""Plan archives: one zip file of stored entries, written the same way every time.

plan.proto names the entries. The archive's identity is the SHA-256 of its
bytes; devices get only the device part, a zip of the manifest and the graph.
"""

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from google.protobuf.message import DecodeError

from device_plan.plan_pb2 import PlanManifest, ServerPart

#: The version of the archive that this code writes and reads.
FORMAT_VERSION = 1

#: Bytes of one entry above which an archive is refused.
MAX_ENTRY_BYTES = 1 << 30

MANIFEST = "manifest.pb"
GRAPH = "training.tflite"
INITIAL_STATE = "server/state.safetensors"
INITIAL_CHECKPOINT = "server/checkpoint.safetensors"
CHECKS = "checks.json"
SCHEDULE = "schedule.json"

Computation = Literal["training", "evaluation"]


class MalformedPlan(ValueError):
    """The bytes are not a plan that this version can read."""


def _zip(entries: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in entries.items():
            # A fixed time and mode: equal entries give equal bytes.
            info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            info.external_attr = 0o644 << 16
            archive.writestr(info, data)
    return buffer.getvalue()


def _unzip(data: bytes, names: tuple[str, ...]) -> dict[str, bytes]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries: dict[str, bytes] = {}
            present = {info.filename: info for info in archive.infolist()}
            for name in names:
                if name not in present:
                    raise MalformedPlan(f"the plan has no entry {name!r}")
                info = present[name]
                if info.compress_type != zipfile.ZIP_STORED or info.file_size > MAX_ENTRY_BYTES:
                    raise MalformedPlan(f"entry {name!r} is compressed or larger than 1 GiB")
                entries[name] = archive.read(info)
            return entries
    except MalformedPlan:
        raise
    except Exception as error:
        # For damaged input zipfile raises besides BadZipFile also ValueError,
        # RuntimeError, struct.error and others, as it happens.
        raise MalformedPlan(f"not a plan archive: {error}") from error


def _manifest(data: bytes, graph: bytes) -> PlanManifest:
    try:
        manifest = PlanManifest.FromString(data)
    except DecodeError as error:
        raise MalformedPlan(f"the manifest cannot be decoded: {error}") from error
    if manifest.format_version != FORMAT_VERSION:
        raise MalformedPlan(
            f"the plan has format version {manifest.format_version}; "
            f"this version of Nightshift reads {FORMAT_VERSION}: build the plan again"
        )
    if hashlib.sha256(graph).hexdigest() != manifest.graph_sha256:
        raise MalformedPlan(f"{GRAPH} is not the graph that the manifest names: it was altered")
    return manifest


class DevicePart:
    """What a device executes: the manifest and the TFLite graph.

    Attributes:
        manifest: The plan's manifest.
        graph: The bytes of training.tflite; they match manifest.graph_sha256.
    """

    def __init__(self, *, manifest: PlanManifest, graph: bytes) -> None:
        self.manifest = manifest
        self.graph = graph

    @classmethod
    def from_bytes(cls, data: bytes) -> "DevicePart":
        """Raises MalformedPlan."""
        entries = _unzip(data, (MANIFEST, GRAPH))
        return cls(manifest=_manifest(entries[MANIFEST], entries[GRAPH]), graph=entries[GRAPH])

    def to_bytes(self) -> bytes:
        return _zip({MANIFEST: _canonical(self.manifest), GRAPH: self.graph})


class PlanArchive:
    """A whole plan, read-only. Open one with `open` or `from_bytes`; both raise MalformedPlan.

    Attributes:
        data: The archive's bytes.
        digest: Their SHA-256 in hex: the plan's identity.
        manifest: The device part's manifest.
        graph: The bytes of training.tflite.
        initial_state: The TFF server state before round 1 (safetensors).
        initial_checkpoint: What devices download in round 1 (safetensors).
        checks: The release checks with their figures.
        schedule: The author's wishes: {"name", "population", "rounds", "cohort",
            "evaluation": {"every_rounds", "cohort"} or None}.
    """

    def __init__(self, data: bytes) -> None:
        names = (
            MANIFEST,
            GRAPH,
            server_entry("training"),
            server_entry("evaluation"),
            INITIAL_STATE,
            INITIAL_CHECKPOINT,
            CHECKS,
            SCHEDULE,
        )
        self.data = data
        self._entries = _unzip(data, names)
        self.graph = self._entries[GRAPH]
        self.manifest = _manifest(self._entries[MANIFEST], self.graph)
        self.initial_state = self._entries[INITIAL_STATE]
        self.initial_checkpoint = self._entries[INITIAL_CHECKPOINT]
        self.checks = _json_object(CHECKS, self._entries[CHECKS])
        self.schedule = _json_object(SCHEDULE, self._entries[SCHEDULE])

    @classmethod
    def open(cls, path: Path | str) -> "PlanArchive":
        """Raises MalformedPlan, or OSError if the file cannot be read."""
        return cls(Path(path).read_bytes())

    @classmethod
    def from_bytes(cls, data: bytes) -> "PlanArchive":
        return cls(data)

    @cached_property
    def digest(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    def server_part(self, computation: Computation) -> ServerPart:
        try:
            return ServerPart.FromString(self._entries[server_entry(computation)])
        except DecodeError as error:
            raise MalformedPlan(f"the {computation} server part is damaged: {error}") from error

    def device_part(self) -> bytes:
        """The bytes that devices download; equal plans give equal bytes."""
        return DevicePart(manifest=self.manifest, graph=self.graph).to_bytes()


def server_entry(computation: Computation) -> str:
    return f"server/{computation}.pb"


def write_archive(
    *,
    manifest: PlanManifest,
    graph: bytes,
    training: ServerPart,
    evaluation: ServerPart,
    initial_state: bytes,
    initial_checkpoint: bytes,
    checks: Mapping[str, Any],
    schedule: Mapping[str, Any],
) -> bytes:
    """The archive's bytes. Sets the manifest's format version and graph digest."""
    stamped = PlanManifest()
    stamped.CopyFrom(manifest)
    stamped.format_version = FORMAT_VERSION
    stamped.graph_sha256 = hashlib.sha256(graph).hexdigest()
    return _zip(
        {
            MANIFEST: _canonical(stamped),
            GRAPH: graph,
            server_entry("training"): _canonical(training),
            server_entry("evaluation"): _canonical(evaluation),
            INITIAL_STATE: initial_state,
            INITIAL_CHECKPOINT: initial_checkpoint,
            CHECKS: _json(checks),
            SCHEDULE: _json(schedule),
        }
    )


def _json_object(name: str, data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise MalformedPlan(f"{name} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise MalformedPlan(f"{name} is not a JSON object")
    return value


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, indent=2, sort_keys=True).encode() + b"\n"


def _canonical(message: PlanManifest | ServerPart) -> bytes:
    return message.SerializeToString(deterministic=True)
