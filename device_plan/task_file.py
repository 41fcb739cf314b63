"""Loads a task file, with one clear error for each mistake an author can make in it."""

import importlib.util
import sys
import traceback
from pathlib import Path

from device_plan.reference_kernels import use_reference_kernels
from device_plan.task import FederatedTask


class InvalidTask(ValueError):
    """The author's input cannot become a plan; the message says what to change."""


def load_task(path: Path) -> FederatedTask:
    """The task that a Python file defines; its directory is importable meanwhile.

    Raises:
        InvalidTask: no such file, it fails, or it defines no task.
    """
    if not path.is_file():
        raise InvalidTask(f"{path}: no such task file")
    specification = importlib.util.spec_from_file_location("nightshift_task", path)
    if specification is None or specification.loader is None:
        raise InvalidTask(f"{path}: a task file is a Python file with the ending .py")
    module = importlib.util.module_from_spec(specification)
    # The author's file imports TensorFlow.
    use_reference_kernels()
    directory = str(path.resolve().parent)
    sys.path.insert(0, directory)
    try:
        specification.loader.exec_module(module)
        task = getattr(module, "task", None)
        if task is None:
            raise InvalidTask(
                f"{path} has no `task`: add a top-level `task = FederatedTask(...)` "
                "or a function `task()` that returns one"
            )
        if callable(task):
            task = task()
    except InvalidTask:
        raise
    except Exception as error:
        raise InvalidTask(f"{path}{_line(error, path)}: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(directory)
    if not isinstance(task, FederatedTask):
        raise InvalidTask(
            f"{path}: `task` must be a device_plan.task.FederatedTask, not a {type(task).__name__}"
        )
    return task


def _line(error: Exception, path: Path) -> str:
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename) == path
    ]
    return f", line {lines[-1]}" if lines else ""
