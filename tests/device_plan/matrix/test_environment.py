"""Environments are built once, whole, and with clear errors. The package index is a directory."""

import base64
import hashlib
import json
import os
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from device_plan.matrix.environment import Environments, Unavailable, user_cache
from device_plan.matrix.pythons import Pythons
from device_plan.matrix.table import RuntimeSpec
from tests.house import ROOT

TINY = RuntimeSpec(
    name="tflite-runtime 9.0",
    family="tflite",
    python=f"{sys.version_info.major}.{sys.version_info.minor}",
    requirements=("tiny-lite==1.0",),
    interpreter="tiny_lite",
    install="light",
)


def write_wheel(directory: Path) -> None:
    """A wheel (PEP 427) of the distribution tiny-lite 1.0."""
    info = "tiny_lite-1.0.dist-info"
    files = {
        "tiny_lite.py": "VERSION = '1.0'\n",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: tiny-lite\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: by hand\nRoot-Is-Purelib: true\n"
        "Tag: py3-none-any\n",
    }
    record = ""
    for name, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest())
        record += f"{name},sha256={digest.decode().rstrip('=')},{len(text)}\n"
    with zipfile.ZipFile(directory / "tiny_lite-1.0-py3-none-any.whl", "w") as wheel:
        for name, text in files.items():
            wheel.writestr(name, text)
        wheel.writestr(f"{info}/RECORD", f"{record}{info}/RECORD,,\n")


@pytest.fixture(autouse=True)
def index(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package index of one wheel, and no other."""
    directory = tmp_path_factory.mktemp("index")
    write_wheel(directory)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(directory))
    return directory


def version(python: Path) -> str:
    code = "import tiny_lite; print(tiny_lite.VERSION)"
    run = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, check=True)
    return run.stdout.strip()


def test_an_environment_is_built_once_and_used_again(tmp_path: Path) -> None:
    environments = Environments(tmp_path)
    assert not environments.installed(TINY)
    built = environments.get(TINY)
    assert built.install_s is not None
    assert built.install_s > 0
    assert version(built.python) == "1.0"
    assert environments.installed(TINY)
    again = environments.get(TINY)
    assert again.python == built.python
    assert again.install_s is None


def test_an_unfinished_environment_is_built_anew(tmp_path: Path) -> None:
    environments = Environments(tmp_path)
    left = environments.path(TINY) / "bin"
    left.mkdir(parents=True)
    (left / "python").write_text("a build that was killed")
    assert not environments.installed(TINY)
    assert version(environments.get(TINY).python) == "1.0"


def test_an_environment_whose_interpreter_is_gone_is_built_anew(tmp_path: Path) -> None:
    environments = Environments(tmp_path)
    python = environments.get(TINY).python
    python.unlink()
    python.symlink_to(tmp_path / "uninstalled")
    assert not environments.installed(TINY)
    assert version(environments.get(TINY).python) == "1.0"


def test_two_processes_build_an_environment_once(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path;"
        "from device_plan.matrix.environment import Environments;"
        "from tests.device_plan.matrix.test_environment import TINY;"
        "print(Environments(Path(sys.argv[1])).get(TINY).install_s is not None)"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, tmp_path], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    built = sorted(process.communicate(timeout=120)[0].strip() for process in processes)
    assert built == ["False", "True"]


def test_other_requirements_are_another_environment(tmp_path: Path) -> None:
    environments = Environments(tmp_path)
    other = replace(TINY, requirements=("tiny-lite==1.0", "numpy<2"))
    assert environments.path(other) != environments.path(TINY)
    assert environments.path(replace(TINY, python="3.9")) != environments.path(TINY)


def test_what_pip_says_is_told(tmp_path: Path) -> None:
    missing = replace(TINY, requirements=("tiny-lite==2.0",))
    environments = Environments(tmp_path)
    with pytest.raises(Unavailable) as caught:
        environments.get(missing)
    assert str(caught.value).startswith("pip could not install it: ")
    assert "No matching distribution found for tiny-lite==2.0" in str(caught.value)
    assert not environments.installed(missing)


def test_a_missing_python_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    with pytest.raises(Unavailable, match=r"^needs Python 3\.99, and none was found"):
        Environments(tmp_path, Pythons()).get(replace(TINY, python="3.99"))


def test_a_cache_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable, match="cannot make its environment"):
        Environments(tmp_path / "file" / "cache").get(TINY)


def test_environments_lie_in_the_users_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert user_cache() == tmp_path / "nightshift" / "runtimes"
    assert Environments().path(TINY).parent == user_cache()
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert user_cache() == tmp_path / "home" / ".cache" / "nightshift" / "runtimes"


def test_an_environment_says_what_it_is(tmp_path: Path) -> None:
    environments = Environments(tmp_path)
    environments.get(TINY)
    said = json.loads((environments.path(TINY) / "ready.json").read_text())
    assert said["name"] == TINY.name
    assert said["requirements"] == list(TINY.requirements)
