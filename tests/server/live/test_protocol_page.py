"""The session with curl in docs/protocol.md, as its reader would type it."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from tests.house import ROOT
from tests.server.live.served import free_port

#: What stands in for the commands on a reader's machine: this interpreter, this
#: checkout, a free port, and a plan that is built already.
NIGHTSHIFT = """#!/bin/sh
case "$1" in
  plan) exec cp "{plan}" digits.plan ;;
  serve) exec "{python}" -m nightshift "$@" --port {port} ;;
  *) exec "{python}" -m nightshift "$@" --server http://127.0.0.1:{port} ;;
esac
"""

PYTHON = """#!/bin/sh
exec "{python}" "$@"
"""

CURL = """#!/bin/sh
exec "{python}" -m tests.server.live.curl_stand_in "$@"
"""


def blocks() -> list[str]:
    text = (ROOT / "docs" / "protocol.md").read_text()
    _, _, section = text.partition("## A session with curl")
    return re.findall(r"^```sh\n(.*?)^```", section, re.MULTILINE | re.DOTALL)


def test_the_session_with_curl_commits_a_round(digits_plan: Path, tmp_path: Path) -> None:
    port = free_port()
    commands = tmp_path / "bin"
    commands.mkdir()
    texts = {"nightshift": NIGHTSHIFT, "python3": PYTHON}
    if shutil.which("curl") is None:
        texts["curl"] = CURL
    for name, text in texts.items():
        command = commands / name
        command.write_text(text.format(plan=digits_plan, python=sys.executable, port=port))
        command.chmod(0o755)
    script = "\n".join(["set -eu", *blocks()])
    assert "127.0.0.1:8750" in script
    script = script.replace("127.0.0.1:8750", f"127.0.0.1:{port}")
    work = tmp_path / "work"
    work.mkdir()
    log = tmp_path / "log"
    environment = {
        **os.environ,
        "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }
    with log.open("w") as output:
        shell = subprocess.Popen(
            ["bash", "-c", script],
            cwd=work,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            code = shell.wait(120)
        finally:
            # The server that the first block leaves in the background.
            os.killpg(shell.pid, signal.SIGKILL)
    said = log.read_text()
    assert code == 0, said
    assert re.search(r"digits.*training.* 1 of ", said), said
    assert "Error" not in said, said
