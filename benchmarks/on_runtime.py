"""Executes many small graphs on the TFLite runtime of the environment it is started in.

    python -I on_runtime.py RUNNER INTERPRETER JOBS ANSWERS

RUNNER is the path of device_plan/matrix/runner.py and INTERPRETER the module that
has the runtime. JOBS is a JSON list of [work directory, graph file, delegates]. To
the file ANSWERS comes one JSON object a job, in order: what the runner gives, or
{"error": how the job crashed}.

Like the runner this file works alone, with Python 3.8. The runtime is imported once;
each job is a fork, so a job that crashes costs nothing but itself.
"""

import importlib
import importlib.util
import json
import os
import sys
import time
from pathlib import Path

#: Seconds after which a job is given up.
TIMEOUT_S = 120.0


def load(path):
    spec = importlib.util.spec_from_file_location("runner", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def job(runner, interpreter, answers, work, graph, delegates):
    """In a process of its own: ends it."""
    try:
        result = runner.run(runner.Work(Path(work)), Path(graph), interpreter, delegates)
        with Path(answers).open("a") as file:
            file.write(json.dumps(result) + "\n")
        os._exit(0)
    except BaseException as error:
        sys.stderr.write(repr(error))
        os._exit(1)


def wait(child):
    """The child's status (waitpid(2)); it is killed when its time is over."""
    began = time.monotonic()
    while time.monotonic() - began < TIMEOUT_S:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status
        time.sleep(0.002)
    os.kill(child, 9)
    return os.waitpid(child, 0)[1]


def main(runner_file, interpreter, jobs, answers):
    runner = load(runner_file)
    importlib.import_module(interpreter)
    for arguments in json.loads(Path(jobs).read_text()):
        child = os.fork()
        if child == 0:
            job(runner, interpreter, answers, *arguments)
        status = wait(child)
        if status != 0:
            how = f"signal {status & 127}" if status & 127 else f"exit code {status >> 8}"
            with Path(answers).open("a") as file:
                file.write(json.dumps({"error": "crashes (" + how + ")"}) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
