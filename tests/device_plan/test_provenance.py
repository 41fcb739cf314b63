"""What a plan says of its origin is what git, sha256sum and the files themselves say."""

import hashlib
import importlib.metadata
import json
import subprocess
from pathlib import Path

import pytest

from device_plan.cohort import CohortPolicy
from device_plan.provenance import Provenance, gather, sources
from device_plan.task import ExampleSelector, FederatedTask


def task(**changes: str) -> FederatedTask:
    return FederatedTask(
        name="small",
        population="small/test",
        model_fn=lambda: None,
        process_fn=lambda _: None,
        batch_size=1,
        examples=ExampleSelector(collection="rows"),
        cohort=CohortPolicy(goal_count=1),
        rounds=1,
        **changes,
    )


def write(root: Path, **texts: str) -> None:
    for name, text in texts.items():
        path = (root / name.replace("__", "/")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def git(root: Path, *arguments: str) -> str:
    run = subprocess.run(
        ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True
    )
    return run.stdout.strip()


def commit(root: Path, message: str, *paths: str) -> str:
    git(root, "add", *paths)
    git(root, "commit", "-q", "-m", message, "--", *paths)
    return git(root, "rev-parse", "HEAD")


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with tasks/mine.py, which imports tasks/network.py, and other.py."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    root = tmp_path / "repository"
    root.mkdir()
    git(root, "init", "-q")
    git(root, "config", "user.name", "Ada")
    git(root, "config", "user.email", "ada@example.org")
    write(root, tasks__mine="import network\n", tasks__network="x = 1\n", other="y = 1\n")
    commit(root, "first", "tasks", "other.py")
    return root


def test_the_sources_are_the_task_file_and_the_local_modules_behind_it(tmp_path: Path) -> None:
    write(
        tmp_path,
        tasks__mine="import json, numpy\nfrom parts import layers\nimport missing\n",
        parts__layers="from . import shapes\nfrom .deep.more import thing\n",
        parts__shapes="def late():\n    import parts.late\n",
        parts__late="import tasks.mine\n",
        parts__deep__more="thing = 1\n",
        parts__unused="",
        unused="",
    )
    (tmp_path / "parts" / "__init__.py").touch()
    found = sources(tmp_path / "tasks" / "mine.py", tmp_path)
    names = [path.relative_to(tmp_path).as_posix() for path in found]
    assert names[0] == "tasks/mine.py"
    assert names[1:] == [
        "parts/__init__.py",
        "parts/deep/more.py",
        "parts/late.py",
        "parts/layers.py",
        "parts/shapes.py",
    ]


def test_the_toolkit_and_installed_packages_are_no_sources(tmp_path: Path) -> None:
    write(tmp_path, mine="from device_plan.task import FederatedTask\nimport numpy, click\n")
    assert sources(tmp_path / "mine.py", tmp_path) == [tmp_path / "mine.py"]


def test_commit_digests_and_versions_are_those_of_git_sha256_and_the_installation(
    repository: Path,
) -> None:
    found = gather(task(reviewer="Grace"), repository / "tasks" / "mine.py")
    assert found.commit == git(repository, "rev-parse", "HEAD")
    assert found.uncommitted == []
    assert found.author == "Ada <ada@example.org>"
    assert found.reviewer == "Grace"
    assert list(found.sources) == ["tasks/mine.py", "tasks/network.py"]
    for path, digest in found.sources.items():
        assert digest == hashlib.sha256((repository / path).read_bytes()).hexdigest()
    assert found.versions["tensorflow"] == importlib.metadata.version("tensorflow")
    assert found.missing() == []


def test_what_others_commit_changes_nothing_so_the_plan_stays_the_same(repository: Path) -> None:
    path = repository / "tasks" / "mine.py"
    before = gather(task(), path)
    write(repository, other="y = 2\n", untracked="z = 1\n")
    commit(repository, "unrelated", "other.py")
    assert gather(task(), path) == before
    write(repository, tasks__network="x = 2\n")
    last = commit(repository, "the model", "tasks/network.py")
    assert gather(task(), path).commit == last


def test_changed_and_untracked_sources_are_listed(repository: Path) -> None:
    write(repository, tasks__mine="import network, new\n", tasks__new="")
    found = gather(task(reviewer="Grace"), repository / "tasks" / "mine.py")
    assert found.uncommitted == ["tasks/mine.py", "tasks/new.py"]
    assert found.missing() == ["not committed: tasks/mine.py, tasks/new.py"]


def test_equal_sources_give_equal_bytes_wherever_they_lie(repository: Path, tmp_path: Path) -> None:
    again = tmp_path / "elsewhere"
    git(tmp_path, "clone", "-q", str(repository), str(again))
    first, second = (
        json.dumps(gather(task(), root / "tasks" / "mine.py").to_json())
        for root in (repository, again)
    )
    assert first == second
    assert str(tmp_path) not in first


def test_without_git_the_sources_count_and_the_rest_is_said_to_be_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, mine="x = 1\n")
    monkeypatch.setenv("PATH", str(tmp_path))
    found = gather(task(), tmp_path / "mine.py")
    assert (found.commit, found.author, list(found.sources)) == ("", "", ["mine.py"])
    assert [clause.partition(":")[0] for clause in found.missing()] == [
        "the task file is in no git commit",
        "nobody is named as the author",
        "nobody is named as the reviewer",
    ]


def test_a_task_file_that_was_never_committed_has_no_commit_but_an_author(
    repository: Path,
) -> None:
    write(repository, fresh__mine="x = 1\n")
    found = gather(task(), repository / "fresh" / "mine.py")
    assert found.commit == ""
    assert found.author == "Ada <ada@example.org>"


def test_nobody_reviews_their_own_task() -> None:
    found = Provenance("Ada", "Ada", {"mine.py": "00"}, "c0ffee", [])
    assert found.missing() == ["author and reviewer are the same, 'Ada'"]
