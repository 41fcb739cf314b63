"""Interpreters are found where people have them, and only those that run."""

import sys
from pathlib import Path

import pytest

from device_plan.matrix.pythons import NoPython, Pythons


def interpreter(path: Path, version: str, code: int = 0) -> Path:
    """A program that answers as Python does when it is asked for its version."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho {version}\nexit {code}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without interpreters, but for the one that runs."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    monkeypatch.delenv("NIGHTSHIFT_PYTHONS", raising=False)
    # For the fake interpreters' own shebang nothing else is needed.
    return tmp_path


def test_the_interpreter_that_runs_is_one(nowhere: Path) -> None:
    assert nowhere.exists()
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert Pythons().find(version) == Path(sys.executable)


def test_an_interpreter_is_found_on_the_path_and_among_pyenvs(nowhere: Path) -> None:
    pyenv = interpreter(nowhere / "pyenv" / "versions" / "3.9.18" / "bin" / "python3.9", "3.9")
    assert Pythons().find("3.9") == pyenv
    on_path = interpreter(nowhere / "bin" / "python3.9", "3.9")
    assert Pythons().find("3.9") == on_path


def test_a_named_directory_comes_first(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interpreter(nowhere / "bin" / "python3.9", "3.9")
    by_variable = interpreter(nowhere / "mine" / "bin" / "python3", "3.9")
    monkeypatch.setenv("NIGHTSHIFT_PYTHONS", f"{nowhere / 'none'}:{nowhere / 'mine'}")
    assert Pythons().find("3.9") == by_variable
    by_option = interpreter(nowhere / "chosen" / "python3.9", "3.9")
    assert Pythons([nowhere / "chosen"]).find("3.9") == by_option


def test_a_program_that_only_looks_like_the_interpreter_is_passed_over(nowhere: Path) -> None:
    interpreter(nowhere / "bin" / "python3.9", "command not found", code=127)
    interpreter(nowhere / "pyenv" / "versions" / "3.9.1" / "bin" / "python3.9", "3.8")
    right = interpreter(nowhere / "pyenv" / "versions" / "3.9.2" / "bin" / "python3.9", "3.9")
    assert Pythons().find("3.9") == right


def test_a_missing_interpreter_is_told_with_what_to_do(nowhere: Path) -> None:
    assert nowhere.exists()
    with pytest.raises(NoPython) as caught:
        Pythons().find("3.9")
    assert str(caught.value).startswith("needs Python 3.9, and none was found on PATH, below ")
    assert "leave the runtime out with --runtimes" in str(caught.value)
