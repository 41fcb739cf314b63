"""The server's side of the model update: requests to a child process that has TensorFlow."""

import logging
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from device_plan import checkpoint
from device_plan.archive import Computation, MalformedPlan, PlanArchive
from server.model_update.messages import Message, MessageTooLarge, receive, send

_log = logging.getLogger(__name__)

_Result = TypeVar("_Result")

#: The directory from which the running packages were imported; the child
#: imports the same ones, whatever its working directory.
_PACKAGES = Path(__file__).resolve().parents[2]


#: Seconds a plan's server part may take to load.
LOAD_TIMEOUT_S = 300.0

COMPUTATIONS: tuple[Computation, ...] = ("training", "evaluation")

_CLOSED = "the model updater was closed"


class UpdateFailed(RuntimeError):
    """There is no result; the message says why, in the words of what failed."""


@dataclass(frozen=True, kw_only=True)
class UpdateResult:
    """What a round's sums became.

    Attributes:
        state: The next TFF server state (safetensors); None for an evaluation.
        checkpoint: What devices download next (safetensors); None likewise.
        metrics: Numbers or nested lists of them by name; None for a number
            that is not finite.
    """

    state: bytes | None
    checkpoint: bytes | None
    metrics: dict[str, Any]


class ModelUpdater:
    """Runs the server parts of plans. Any number of threads may use it; requests take turns.

    The child is started by `start`, or by the first request, and again if it
    died. It dies with this process, however that ends.

    Args:
        start_timeout_s: Seconds the child may take to import TensorFlow.
        request_timeout_s: Seconds one computation may take.
        log: Where the child's own output goes; nowhere if None.
        program: The module that the child runs.
    """

    def __init__(
        self,
        *,
        start_timeout_s: float = 120.0,
        request_timeout_s: float = 600.0,
        log: Path | None = None,
        program: str = "server.model_update.process",
    ) -> None:
        self._start_timeout_s = start_timeout_s
        self._request_timeout_s = request_timeout_s
        self._log_path = log
        self._program = program
        # Linux ends the child when the thread that started it ends (prctl(2),
        # PR_SET_PDEATHSIG), so one thread that lives until `close` does all of
        # it; this is also what makes requests take turns.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model-update")
        self._lock = threading.Lock()
        self._child: _Child | None = None
        self._closed = False

    @property
    def pid(self) -> int | None:
        """The child's process id, for the operator's eyes; None if there is none now."""
        child = self._child
        return None if child is None else child.pid

    @property
    def ready(self) -> bool:
        """Whether the child has imported TensorFlow and answers at once."""
        child = self._child
        return child is not None and child.ready

    def start(self) -> None:
        """Begin to start the child, unless it is ready, without waiting for it."""
        self._in_background(lambda _: None)

    def warm(self, plan: PlanArchive) -> None:
        """Begin to load a plan into the child, without waiting for it."""
        for computation in COMPUTATIONS:
            self._in_background(partial(_load, plan=plan, computation=computation))

    def apply(
        self,
        plan: PlanArchive,
        computation: Computation,
        state: bytes | None,
        sums: Mapping[str, np.ndarray],
    ) -> UpdateResult:
        """The next state and model of a training round, or the metrics of an evaluation.

        Nothing is remembered from one call to the next: a call that failed
        may be repeated.

        Args:
            plan: The plan whose server part is run.
            computation: Which of the two.
            state: The TFF server state before the round, for training only.
            sums: The sums of the accepted updates, as ServerPart.sums says.

        Raises:
            UpdateFailed: TensorFlow or the plan failed, the result has NaN or
                a weight that is not finite, the child died twice or took too
                long, or this updater was closed.
            ValueError: training without a state, or an evaluation with one.
        """
        if (state is None) == (computation == "training"):
            raise ValueError(f"{computation} {'needs a' if state is None else 'has no'} state")
        fields = {"key": _key(plan, computation), "computation": computation}
        request = Message("apply", fields, (state or b"", checkpoint.encode(sums)))

        def exchange(child: _Child) -> Message:
            answer = child.ask(request, self._request_timeout_s)
            if answer.kind == "unknown":
                _load(child, plan=plan, computation=computation)
                answer = child.ask(request, self._request_timeout_s)
            return answer

        try:
            answer = self._thread.submit(self._with_child, exchange).result()
        except CancelledError:
            raise UpdateFailed(_CLOSED) from None
        except RuntimeError as error:
            if self._closed and not isinstance(error, UpdateFailed):
                raise UpdateFailed(_CLOSED) from None
            raise
        if answer.kind != "applied":
            raise UpdateFailed(f"the model-update process answered {answer.kind!r}")
        new_state, weights = answer.attachments or (None, None)
        return UpdateResult(
            state=new_state, checkpoint=weights, metrics=dict(answer.fields["metrics"])
        )

    def close(self) -> None:
        """End the child, and requests that run with UpdateFailed. May be called twice."""
        with self._lock:
            self._closed = True
            if self._child is not None:
                self._child.kill()
        self._thread.shutdown(wait=True, cancel_futures=True)
        self._discard()

    def _with_child(self, exchange: Callable[["_Child"], _Result]) -> _Result:
        """The exchange's result; if the child dies in it, of a second one with a new child."""
        try:
            return self._once(exchange)
        except _ChildLost as error:
            _log.warning("the model-update process died (%s); it is started again", error)
        try:
            return self._once(exchange)
        except _ChildLost as error:
            raise UpdateFailed(f"the model-update process died twice: {error}") from error

    def _once(self, exchange: Callable[["_Child"], _Result]) -> _Result:
        child = self._current()
        try:
            if not child.ready:
                child.wait_until_ready(self._start_timeout_s)
            return exchange(child)
        except (_ChildLost, TimeoutError) as error:
            self._discard()
            if self._closed:
                raise UpdateFailed(_CLOSED) from None
            if isinstance(error, TimeoutError):
                raise UpdateFailed("the model-update process took too long; it was ended") from None
            raise
        except (MessageTooLarge, MalformedPlan) as error:
            raise UpdateFailed(str(error)) from error

    def _current(self) -> "_Child":
        with self._lock:
            if self._closed:
                raise UpdateFailed(_CLOSED)
            if self._child is None:
                self._child = _Child(self._program, self._log_path)
            return self._child

    def _discard(self) -> None:
        with self._lock:
            child, self._child = self._child, None
        if child is not None:
            child.dispose()

    def _in_background(self, exchange: Callable[["_Child"], object]) -> None:
        def report(future: Future[object]) -> None:
            if not future.cancelled() and (error := future.exception()) and not self._closed:
                _log.warning("the model updater is not ready yet: %s", error)

        self._thread.submit(self._with_child, exchange).add_done_callback(report)


class _ChildLost(RuntimeError):
    """The child has ended or does not speak the protocol."""


class _Child:
    """One process and the stream to it."""

    def __init__(self, program: str, log: Path | None) -> None:
        self._loaded = False
        self._stream, theirs = socket.socketpair()
        paths = [str(_PACKAGES), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {
            "TF_CPP_MIN_LOG_LEVEL": "2",
            **os.environ,
            "CUDA_VISIBLE_DEVICES": "-1",
            "PYTHONPATH": os.pathsep.join(paths),
        }
        # -P: a directory named like one of our packages, where the server
        # happens to be started, must not be imported instead of it.
        command = [sys.executable, "-P", "-m", program, str(theirs.fileno()), str(os.getpid())]
        with theirs, (log or Path(os.devnull)).open("ab") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
                pass_fds=(theirs.fileno(),),
            )
        self.pid = self._process.pid

    @property
    def ready(self) -> bool:
        return self._loaded and self._process.poll() is None

    def wait_until_ready(self, timeout_s: float) -> None:
        """Raises TimeoutError, _ChildLost, or UpdateFailed if it cannot import TensorFlow."""
        self._exchange(None, timeout_s)
        self._loaded = True

    def ask(self, request: Message, timeout_s: float) -> Message:
        """Raises TimeoutError, _ChildLost, or UpdateFailed with what the child says."""
        return self._exchange(request, timeout_s)

    def kill(self) -> None:
        """End the process and reap it; a thread that waits for its answer gets _ChildLost."""
        self._process.kill()
        self._process.wait()

    def dispose(self) -> None:
        """The same, once no thread waits for it any more."""
        self.kill()
        self._stream.close()

    def _exchange(self, request: Message | None, timeout_s: float) -> Message:
        self._stream.settimeout(timeout_s)
        try:
            if request is not None:
                send(self._stream, request)
            answer = receive(self._stream)
        except TimeoutError:
            raise
        except OSError as error:
            raise _ChildLost(f"{error}{self._ending()}") from error
        if answer is None:
            raise _ChildLost(f"it closed the stream{self._ending()}")
        if answer.kind == "failed":
            raise UpdateFailed(answer.fields["message"])
        return answer

    def _ending(self) -> str:
        try:
            code = self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            return ""
        return f", exit status {code}" if code >= 0 else f", signal {-code}"


def _load(child: _Child, *, plan: PlanArchive, computation: Computation) -> None:
    part = plan.server_part(computation).SerializeToString()
    child.ask(Message("load", {"key": _key(plan, computation)}, (part,)), LOAD_TIMEOUT_S)


def _key(plan: PlanArchive, computation: Computation) -> str:
    return f"{plan.digest}/{computation}"
