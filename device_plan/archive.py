"""Plan archives: one zip file of stored entries, written the same way every time.

plan.proto names the entries. The archive's identity is the SHA-256 of its
bytes; a device gets only one device part, a zip of one variant's manifest and
graph, and the signature of that manifest if the plan is signed.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from google.protobuf.message import DecodeError

from device_plan.plan_pb2 import PlanManifest, Runtime, ServerPart
from device_plan.stored_zip import MalformedZip, pack, unpack

#: The version of the archive that this code writes.
FORMAT_VERSION = 2

#: Those it reads. Version 1 had one variant, no provenance and no signature.
READABLE_VERSIONS = (1, 2)

MANIFEST = "manifest.pb"
GRAPH = "training.tflite"
MANIFEST_SIGNATURE = "manifest.signature"
INITIAL_STATE = "server/state.safetensors"
INITIAL_CHECKPOINT = "server/checkpoint.safetensors"
PROVENANCE = "provenance.json"
CHECKS = "checks.json"
SCHEDULE = "schedule.json"
SIGNATURE = "signature"

#: The variant of a manifest that names none.
MODERN = "modern"

_VARIANT = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
_VARIANT_MANIFEST = re.compile(rf"variants/([^/]*)/{re.escape(MANIFEST)}")

#: Fields of the manifest in which all variants agree: the server and the author
#: know only one of them.
_SHARED = (
    "name",
    "population",
    "checkpoint",
    "examples",
    "update",
    "metrics",
    "weight_tensor",
    "max_weight",
)

Computation = Literal["training", "evaluation"]


class MalformedPlan(ValueError):
    """The bytes are not a plan that this version can read."""


def _unpack(data: bytes, required: Iterable[str]) -> dict[str, bytes]:
    try:
        entries = unpack(data)
    except MalformedZip as error:
        raise MalformedPlan(f"not a plan archive: {error}") from error
    for name in required:
        if name not in entries:
            raise MalformedPlan(f"the plan has no entry {name!r}")
    return entries


class DevicePart:
    """What a device executes: one variant's manifest and TFLite graph.

    Args:
        manifest: The variant's manifest.
        graph: The bytes of training.tflite; for a device they must match
            manifest.graph_sha256 (`write_archive` sees to that).
        signature: Of the manifest, as device_plan.signing writes it; b"" if unsigned.

    Attributes:
        manifest_data: The manifest's bytes, which the signature covers.
    """

    def __init__(self, *, manifest: PlanManifest, graph: bytes, signature: bytes = b"") -> None:
        self.manifest = manifest
        self.graph = graph
        self.signature = signature
        self.manifest_data = _canonical(manifest)

    @classmethod
    def from_bytes(cls, data: bytes) -> "DevicePart":
        """Raises MalformedPlan."""
        return cls._of_entries(_unpack(data, (MANIFEST, GRAPH)), "")

    @classmethod
    def _of_entries(cls, entries: Mapping[str, bytes], folder: str) -> "DevicePart":
        data, graph = entries[folder + MANIFEST], entries[folder + GRAPH]
        try:
            manifest = PlanManifest.FromString(data)
        except DecodeError as error:
            raise MalformedPlan(f"the manifest cannot be decoded: {error}") from error
        if manifest.format_version not in READABLE_VERSIONS:
            raise MalformedPlan(
                f"the plan has format version {manifest.format_version}; this version of "
                f"Nightshift reads {' and '.join(map(str, READABLE_VERSIONS))}: "
                "build the plan again"
            )
        if hashlib.sha256(graph).hexdigest() != manifest.graph_sha256:
            raise MalformedPlan(f"{GRAPH} is not the graph that the manifest names: it was altered")
        part = cls(
            manifest=manifest,
            graph=graph,
            signature=entries.get(folder + MANIFEST_SIGNATURE, b""),
        )
        # As it was read: what is signed are bytes, not what they decode to.
        part.manifest_data = data
        return part

    @property
    def variant(self) -> str:
        """The variant's name, e.g. "modern" or "legacy"."""
        return self.manifest.variant or MODERN

    def entries(self, folder: str = "") -> dict[str, bytes]:
        """Name and content of its entries in a zip, below a folder of it."""
        entries = {folder + MANIFEST: self.manifest_data, folder + GRAPH: self.graph}
        if self.signature:
            entries[folder + MANIFEST_SIGNATURE] = self.signature
        return entries

    def to_bytes(self) -> bytes:
        """What devices download; equal parts give equal bytes."""
        return pack(self.entries())


class PlanArchive:
    """A whole plan, read-only. Open one with `open` or `from_bytes`; both raise MalformedPlan.

    Attributes:
        data: The archive's bytes.
        digest: Their SHA-256 in hex: the plan's identity.
        variants: Its device parts, the best (newest) first, with distinct names.
        manifest: That of the first variant.
        graph: The bytes of its training.tflite.
        initial_state: The TFF server state before round 1 (safetensors).
        initial_checkpoint: What devices download in round 1 (safetensors).
        provenance: Where the plan comes from; None if it does not say.
        checks: The release checks with their figures.
        schedule: The author's wishes: {"name", "population", "rounds", "cohort",
            "evaluation": {"every_rounds", "cohort"} or None}.
        signature: Of the whole archive, as device_plan.signing writes it; b"" if unsigned.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data
        self._entries = _unpack(
            data,
            (
                MANIFEST,
                GRAPH,
                server_entry("training"),
                server_entry("evaluation"),
                INITIAL_STATE,
                INITIAL_CHECKPOINT,
                CHECKS,
                SCHEDULE,
            ),
        )
        self.variants = _variants(self._entries)
        self.manifest = self.variants[0].manifest
        self.graph = self.variants[0].graph
        self.initial_state = self._entries[INITIAL_STATE]
        self.initial_checkpoint = self._entries[INITIAL_CHECKPOINT]
        self.checks = _json_object(CHECKS, self._entries[CHECKS])
        self.schedule = _json_object(SCHEDULE, self._entries[SCHEDULE])
        self.provenance = (
            _json_object(PROVENANCE, self._entries[PROVENANCE])
            if PROVENANCE in self._entries
            else None
        )
        self.signature = self._entries.get(SIGNATURE, b"")

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
        """The bytes that devices of the first variant download."""
        return self.variants[0].to_bytes()

    def contents(self) -> dict[str, str]:
        """SHA-256 in hex of every entry by name, signatures excepted."""
        signatures = {SIGNATURE} | {
            _folder(place, part) + MANIFEST_SIGNATURE for place, part in enumerate(self.variants)
        }
        return {
            name: hashlib.sha256(data).hexdigest()
            for name, data in self._entries.items()
            if name not in signatures
        }

    def with_signatures(self, *, archive: bytes, variants: Sequence[bytes]) -> bytes:
        """The same content with these signatures, in place of those it has.

        Args:
            archive: Of the whole archive.
            variants: Of each variant's manifest, in the order of `variants`.
        """
        entries = {name: self._entries[name] for name in self.contents()}
        for place, (part, signature) in enumerate(zip(self.variants, variants, strict=True)):
            entries[_folder(place, part) + MANIFEST_SIGNATURE] = signature
        return pack(entries | {SIGNATURE: archive})

    def with_evidence(
        self,
        *,
        runtimes: Mapping[str, Sequence[Runtime]],
        checks: Mapping[str, Any],
        provenance: Mapping[str, Any] | None,
    ) -> bytes:
        """The same plan, unsigned, with what has been found out about it.

        Args:
            runtimes: On which each variant passed, by the variant's name. One that is
                not named passed on none.
            checks: Instead of those it has.
            provenance: Likewise; None leaves it as it is.

        Raises:
            ValueError: the plan has no variant of that name.
        """
        known = [part.variant for part in self.variants]
        for name in runtimes:
            if name not in known:
                raise ValueError(f"the plan has no variant {name!r}: it has {', '.join(known)}")
        parts = []
        for part in self.variants:
            manifest = PlanManifest()
            manifest.CopyFrom(part.manifest)
            del manifest.runtimes[:]
            manifest.runtimes.extend(runtimes.get(part.variant, ()))
            parts.append(DevicePart(manifest=manifest, graph=part.graph))
        return write_archive(
            variants=parts,
            training=self.server_part("training"),
            evaluation=self.server_part("evaluation"),
            initial_state=self.initial_state,
            initial_checkpoint=self.initial_checkpoint,
            checks=checks,
            schedule=self.schedule,
            provenance=self.provenance if provenance is None else provenance,
        )


def server_entry(computation: Computation) -> str:
    return f"server/{computation}.pb"


def write_archive(
    *,
    variants: Sequence[DevicePart],
    training: ServerPart,
    evaluation: ServerPart,
    initial_state: bytes,
    initial_checkpoint: bytes,
    checks: Mapping[str, Any],
    schedule: Mapping[str, Any],
    provenance: Mapping[str, Any] | None = None,
) -> bytes:
    """The bytes of an unsigned archive.

    Sets each manifest's format version and graph digest, in a copy.

    Args:
        variants: At least one device part, the best first.
        training, evaluation: The server's parts.
        initial_state: The TFF server state before round 1 (safetensors).
        initial_checkpoint: What devices download in round 1 (safetensors).
        checks, schedule, provenance: As the attributes of PlanArchive say; of
            values that JSON has.

    Raises:
        MalformedPlan: the variants do not belong to one plan.
    """
    stamped = [_stamped(part) for part in variants]
    _check_variants(stamped)
    entries: dict[str, bytes] = {}
    for place, part in enumerate(stamped):
        entries |= part.entries(_folder(place, part))
    entries |= {
        server_entry("training"): _canonical(training),
        server_entry("evaluation"): _canonical(evaluation),
        INITIAL_STATE: initial_state,
        INITIAL_CHECKPOINT: initial_checkpoint,
        CHECKS: _json(checks),
        SCHEDULE: _json(schedule),
    }
    if provenance is not None:
        entries[PROVENANCE] = _json(provenance)
    return pack(entries)


def _folder(place: int, part: DevicePart) -> str:
    """Where the entries of a plan's variant are, in the archive."""
    return "" if place == 0 else f"variants/{part.variant}/"


def _stamped(part: DevicePart) -> DevicePart:
    manifest = PlanManifest()
    manifest.CopyFrom(part.manifest)
    manifest.format_version = FORMAT_VERSION
    manifest.graph_sha256 = hashlib.sha256(part.graph).hexdigest()
    return DevicePart(manifest=manifest, graph=part.graph)


def _variants(entries: Mapping[str, bytes]) -> tuple[DevicePart, ...]:
    """The device parts of an archive's entries, in their order. Raises MalformedPlan."""
    parts = [DevicePart._of_entries(entries, "")]
    for entry in entries:
        found = _VARIANT_MANIFEST.fullmatch(entry)
        if found is None:
            continue
        folder = entry.removesuffix(MANIFEST)
        if folder + GRAPH not in entries:
            raise MalformedPlan(f"the plan has no entry {folder + GRAPH!r}")
        part = DevicePart._of_entries(entries, folder)
        if part.variant != found[1]:
            raise MalformedPlan(f"{entry!r} is the manifest of the variant {part.variant!r}")
        parts.append(part)
    _check_variants(parts)
    return tuple(parts)


def _check_variants(parts: Sequence[DevicePart]) -> None:
    """Raises MalformedPlan."""
    if not parts:
        raise MalformedPlan("a plan has at least one variant")
    names = [part.variant for part in parts]
    for part in parts:
        if not _VARIANT.fullmatch(part.variant):
            raise MalformedPlan(
                f"{part.variant!r} is no name for a variant: it needs 1 to 32 lower-case "
                "letters, digits, '-' or '_'"
            )
        if names.count(part.variant) > 1:
            raise MalformedPlan(f"the plan has two variants {part.variant!r}")
        for field in _SHARED:
            if getattr(part.manifest, field) != getattr(parts[0].manifest, field):
                raise MalformedPlan(
                    f"the variants {names[0]!r} and {part.variant!r} are of different plans: "
                    f"their {field} differs"
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
