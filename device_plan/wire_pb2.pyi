from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Reason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REASON_UNSPECIFIED: _ClassVar[Reason]
    NO_TASK: _ClassVar[Reason]
    ROUND_FULL: _ClassVar[Reason]
    NOT_SELECTED: _ClassVar[Reason]
    ROUND_ABANDONED: _ClassVar[Reason]
    GOAL_REACHED: _ClassVar[Reason]
    HELD_OUT: _ClassVar[Reason]
    RUNTIME_NOT_SUPPORTED: _ClassVar[Reason]
    PARTICIPATED_RECENTLY: _ClassVar[Reason]
    PARTICIPATED_ENOUGH: _ClassVar[Reason]
    DRAINING: _ClassVar[Reason]
    QUOTA_REACHED: _ClassVar[Reason]
    MALFORMED_MESSAGE: _ClassVar[Reason]
    INVALID_FIELD: _ClassVar[Reason]
    UNSUPPORTED_PROTOCOL: _ClassVar[Reason]
    UNSUPPORTED_MEDIA_TYPE: _ClassVar[Reason]
    MISSING_CREDENTIAL: _ClassVar[Reason]
    NOT_YOUR_SESSION: _ClassVar[Reason]
    UNKNOWN_POPULATION: _ClassVar[Reason]
    UNKNOWN_SESSION: _ClassVar[Reason]
    UNKNOWN_BLOB: _ClassVar[Reason]
    DEVICE_ALREADY_IN_SESSION: _ClassVar[Reason]
    WRONG_STATE: _ClassVar[Reason]
    CHUNK_OUT_OF_ORDER: _ClassVar[Reason]
    ALREADY_SUBMITTED: _ClassVar[Reason]
    UPLOAD_INCOMPLETE: _ClassVar[Reason]
    ROUND_OVER: _ClassVar[Reason]
    LENGTH_REQUIRED: _ClassVar[Reason]
    TOO_LARGE: _ClassVar[Reason]
    WRONG_DIGEST: _ClassVar[Reason]
    TRUNCATED: _ClassVar[Reason]
    INVALID_UPDATE: _ClassVar[Reason]
    NOT_FINITE: _ClassVar[Reason]
    OUT_OF_RANGE: _ClassVar[Reason]
    BUSY: _ClassVar[Reason]
    UNKNOWN_ROUTE: _ClassVar[Reason]

class Computation(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    COMPUTATION_UNSPECIFIED: _ClassVar[Computation]
    TRAINING: _ClassVar[Computation]
    EVALUATION: _ClassVar[Computation]

class AbortReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ABORT_REASON_UNSPECIFIED: _ClassVar[AbortReason]
    CONDITIONS_CHANGED: _ClassVar[AbortReason]
    NOT_ENOUGH_EXAMPLES: _ClassVar[AbortReason]
    OUT_OF_TIME: _ClassVar[AbortReason]
    COMPUTATION_FAILED: _ClassVar[AbortReason]
    DOWNLOAD_FAILED: _ClassVar[AbortReason]
    UNSUPPORTED_PLAN: _ClassVar[AbortReason]
    UNTRUSTED_PLAN: _ClassVar[AbortReason]
REASON_UNSPECIFIED: Reason
NO_TASK: Reason
ROUND_FULL: Reason
NOT_SELECTED: Reason
ROUND_ABANDONED: Reason
GOAL_REACHED: Reason
HELD_OUT: Reason
RUNTIME_NOT_SUPPORTED: Reason
PARTICIPATED_RECENTLY: Reason
PARTICIPATED_ENOUGH: Reason
DRAINING: Reason
QUOTA_REACHED: Reason
MALFORMED_MESSAGE: Reason
INVALID_FIELD: Reason
UNSUPPORTED_PROTOCOL: Reason
UNSUPPORTED_MEDIA_TYPE: Reason
MISSING_CREDENTIAL: Reason
NOT_YOUR_SESSION: Reason
UNKNOWN_POPULATION: Reason
UNKNOWN_SESSION: Reason
UNKNOWN_BLOB: Reason
DEVICE_ALREADY_IN_SESSION: Reason
WRONG_STATE: Reason
CHUNK_OUT_OF_ORDER: Reason
ALREADY_SUBMITTED: Reason
UPLOAD_INCOMPLETE: Reason
ROUND_OVER: Reason
LENGTH_REQUIRED: Reason
TOO_LARGE: Reason
WRONG_DIGEST: Reason
TRUNCATED: Reason
INVALID_UPDATE: Reason
NOT_FINITE: Reason
OUT_OF_RANGE: Reason
BUSY: Reason
UNKNOWN_ROUTE: Reason
COMPUTATION_UNSPECIFIED: Computation
TRAINING: Computation
EVALUATION: Computation
ABORT_REASON_UNSPECIFIED: AbortReason
CONDITIONS_CHANGED: AbortReason
NOT_ENOUGH_EXAMPLES: AbortReason
OUT_OF_TIME: AbortReason
COMPUTATION_FAILED: AbortReason
DOWNLOAD_FAILED: AbortReason
UNSUPPORTED_PLAN: AbortReason
UNTRUSTED_PLAN: AbortReason

class RetryWindow(_message.Message):
    __slots__ = ("min_delay_ms", "max_delay_ms")
    MIN_DELAY_MS_FIELD_NUMBER: _ClassVar[int]
    MAX_DELAY_MS_FIELD_NUMBER: _ClassVar[int]
    min_delay_ms: int
    max_delay_ms: int
    def __init__(self, min_delay_ms: _Optional[int] = ..., max_delay_ms: _Optional[int] = ...) -> None: ...

class RetryWindows(_message.Message):
    __slots__ = ("if_accepted", "if_rejected")
    IF_ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    IF_REJECTED_FIELD_NUMBER: _ClassVar[int]
    if_accepted: RetryWindow
    if_rejected: RetryWindow
    def __init__(self, if_accepted: _Optional[_Union[RetryWindow, _Mapping]] = ..., if_rejected: _Optional[_Union[RetryWindow, _Mapping]] = ...) -> None: ...

class Error(_message.Message):
    __slots__ = ("reason", "message", "retry_windows", "upload_offset")
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    RETRY_WINDOWS_FIELD_NUMBER: _ClassVar[int]
    UPLOAD_OFFSET_FIELD_NUMBER: _ClassVar[int]
    reason: Reason
    message: str
    retry_windows: RetryWindows
    upload_offset: int
    def __init__(self, reason: _Optional[_Union[Reason, str]] = ..., message: _Optional[str] = ..., retry_windows: _Optional[_Union[RetryWindows, _Mapping]] = ..., upload_offset: _Optional[int] = ...) -> None: ...

class CheckInRequest(_message.Message):
    __slots__ = ("protocol_version", "check_in_id", "runtime", "client_version", "attributes")
    class AttributesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    CHECK_IN_ID_FIELD_NUMBER: _ClassVar[int]
    RUNTIME_FIELD_NUMBER: _ClassVar[int]
    CLIENT_VERSION_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    check_in_id: str
    runtime: str
    client_version: str
    attributes: _containers.ScalarMap[str, str]
    def __init__(self, protocol_version: _Optional[int] = ..., check_in_id: _Optional[str] = ..., runtime: _Optional[str] = ..., client_version: _Optional[str] = ..., attributes: _Optional[_Mapping[str, str]] = ...) -> None: ...

class CheckInResponse(_message.Message):
    __slots__ = ("protocol_version", "retry_windows", "session_id", "session_token", "waiting", "assignment", "rejection", "session_url")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    RETRY_WINDOWS_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_TOKEN_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    ASSIGNMENT_FIELD_NUMBER: _ClassVar[int]
    REJECTION_FIELD_NUMBER: _ClassVar[int]
    SESSION_URL_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    retry_windows: RetryWindows
    session_id: str
    session_token: str
    waiting: Waiting
    assignment: Assignment
    rejection: Rejection
    session_url: str
    def __init__(self, protocol_version: _Optional[int] = ..., retry_windows: _Optional[_Union[RetryWindows, _Mapping]] = ..., session_id: _Optional[str] = ..., session_token: _Optional[str] = ..., waiting: _Optional[_Union[Waiting, _Mapping]] = ..., assignment: _Optional[_Union[Assignment, _Mapping]] = ..., rejection: _Optional[_Union[Rejection, _Mapping]] = ..., session_url: _Optional[str] = ...) -> None: ...

class Waiting(_message.Message):
    __slots__ = ("poll_after_ms",)
    POLL_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    poll_after_ms: int
    def __init__(self, poll_after_ms: _Optional[int] = ...) -> None: ...

class Rejection(_message.Message):
    __slots__ = ("reason", "message")
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    reason: Reason
    message: str
    def __init__(self, reason: _Optional[_Union[Reason, str]] = ..., message: _Optional[str] = ...) -> None: ...

class Assignment(_message.Message):
    __slots__ = ("round_id", "task", "computation", "plan", "checkpoint", "upload", "deadline_ms")
    ROUND_ID_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    COMPUTATION_FIELD_NUMBER: _ClassVar[int]
    PLAN_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    UPLOAD_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_MS_FIELD_NUMBER: _ClassVar[int]
    round_id: str
    task: str
    computation: Computation
    plan: Blob
    checkpoint: Blob
    upload: Upload
    deadline_ms: int
    def __init__(self, round_id: _Optional[str] = ..., task: _Optional[str] = ..., computation: _Optional[_Union[Computation, str]] = ..., plan: _Optional[_Union[Blob, _Mapping]] = ..., checkpoint: _Optional[_Union[Blob, _Mapping]] = ..., upload: _Optional[_Union[Upload, _Mapping]] = ..., deadline_ms: _Optional[int] = ...) -> None: ...

class Blob(_message.Message):
    __slots__ = ("sha256", "size", "path")
    SHA256_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    sha256: str
    size: int
    path: str
    def __init__(self, sha256: _Optional[str] = ..., size: _Optional[int] = ..., path: _Optional[str] = ...) -> None: ...

class Upload(_message.Message):
    __slots__ = ("path", "max_bytes", "max_chunk_bytes")
    PATH_FIELD_NUMBER: _ClassVar[int]
    MAX_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_CHUNK_BYTES_FIELD_NUMBER: _ClassVar[int]
    path: str
    max_bytes: int
    max_chunk_bytes: int
    def __init__(self, path: _Optional[str] = ..., max_bytes: _Optional[int] = ..., max_chunk_bytes: _Optional[int] = ...) -> None: ...

class ReportRequest(_message.Message):
    __slots__ = ("examples", "batches", "compute_ms")
    EXAMPLES_FIELD_NUMBER: _ClassVar[int]
    BATCHES_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_MS_FIELD_NUMBER: _ClassVar[int]
    examples: int
    batches: int
    compute_ms: int
    def __init__(self, examples: _Optional[int] = ..., batches: _Optional[int] = ..., compute_ms: _Optional[int] = ...) -> None: ...

class ReportResponse(_message.Message):
    __slots__ = ("retry_windows", "upload", "reason")
    RETRY_WINDOWS_FIELD_NUMBER: _ClassVar[int]
    UPLOAD_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    retry_windows: RetryWindows
    upload: bool
    reason: Reason
    def __init__(self, retry_windows: _Optional[_Union[RetryWindows, _Mapping]] = ..., upload: bool = ..., reason: _Optional[_Union[Reason, str]] = ...) -> None: ...

class UploadResponse(_message.Message):
    __slots__ = ("retry_windows", "received")
    RETRY_WINDOWS_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_FIELD_NUMBER: _ClassVar[int]
    retry_windows: RetryWindows
    received: int
    def __init__(self, retry_windows: _Optional[_Union[RetryWindows, _Mapping]] = ..., received: _Optional[int] = ...) -> None: ...

class SubmitRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SubmitResponse(_message.Message):
    __slots__ = ("retry_windows",)
    RETRY_WINDOWS_FIELD_NUMBER: _ClassVar[int]
    retry_windows: RetryWindows
    def __init__(self, retry_windows: _Optional[_Union[RetryWindows, _Mapping]] = ...) -> None: ...

class AbortRequest(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: AbortReason
    def __init__(self, reason: _Optional[_Union[AbortReason, str]] = ...) -> None: ...

class AbortResponse(_message.Message):
    __slots__ = ("retry_windows",)
    RETRY_WINDOWS_FIELD_NUMBER: _ClassVar[int]
    retry_windows: RetryWindows
    def __init__(self, retry_windows: _Optional[_Union[RetryWindows, _Mapping]] = ...) -> None: ...

class EventsRequest(_message.Message):
    __slots__ = ("sessions",)
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    sessions: _containers.RepeatedCompositeFieldContainer[SessionEvents]
    def __init__(self, sessions: _Optional[_Iterable[_Union[SessionEvents, _Mapping]]] = ...) -> None: ...

class SessionEvents(_message.Message):
    __slots__ = ("population", "session_id", "shape", "bytes_down", "bytes_up", "duration_ms")
    POPULATION_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    BYTES_DOWN_FIELD_NUMBER: _ClassVar[int]
    BYTES_UP_FIELD_NUMBER: _ClassVar[int]
    DURATION_MS_FIELD_NUMBER: _ClassVar[int]
    population: str
    session_id: str
    shape: str
    bytes_down: int
    bytes_up: int
    duration_ms: int
    def __init__(self, population: _Optional[str] = ..., session_id: _Optional[str] = ..., shape: _Optional[str] = ..., bytes_down: _Optional[int] = ..., bytes_up: _Optional[int] = ..., duration_ms: _Optional[int] = ...) -> None: ...

class EventsResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
