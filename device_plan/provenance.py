"""Where a plan comes from: commit, people, versions and the digests of its sources.

Bonawitz et al. 2019, §7.3: a plan may be deployed only if it was "built from
auditable, peer reviewed code". Nothing here depends on the time or on where the
checkout lies, so that equal sources give equal plans.
"""

import ast
import hashlib
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from device_plan.task import FederatedTask

#: Distributions whose versions decide what a plan computes.
DISTRIBUTIONS = ("nightshift", "tensorflow", "tensorflow-federated")

#: The toolkit itself, which its version stands for.
_TOOLKIT = "device_plan"

_GIT_TIMEOUT_S = 20.0


@dataclass(frozen=True)
class Provenance:
    """Who made a plan from what.

    Attributes:
        author, reviewer: As the task has them; without an author, that of the
            commit, or else the person that git is configured with. "" if unknown.
        sources: SHA-256 in hex of the task file, which comes first, and of the
            local modules that it imports, directly or through others; by path
            from the repository's root, or from the task file's directory without git.
        commit: The last one that changed any of the sources; "" without git.
        uncommitted: Sources that differ from that commit, or are in none.
        versions: Of the distributions that decide what a plan computes; "" where
            one is not installed.
    """

    author: str
    reviewer: str
    sources: dict[str, str]
    commit: str
    uncommitted: list[str]
    versions: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def missing(self) -> list[str]:
        """What a policy that requires provenance misses, in whole clauses."""
        wanting = []
        if not self.commit:
            wanting.append("the task file is in no git commit: commit it")
        elif self.uncommitted:
            wanting.append(f"not committed: {', '.join(self.uncommitted)}")
        if not self.author:
            wanting.append("nobody is named as the author: set the task's author")
        if not self.reviewer:
            wanting.append("nobody is named as the reviewer: set the task's reviewer")
        elif self.reviewer == self.author:
            wanting.append(f"author and reviewer are the same, {self.author!r}")
        return wanting


def gather(task: FederatedTask, task_file: Path) -> Provenance:
    """The provenance of a task and of the file that defines it.

    Raises:
        OSError: a source cannot be read.
    """
    task_file = task_file.resolve()
    directory = task_file.parent
    top = _git(directory, "rev-parse", "--show-toplevel")
    root = Path(top).resolve() if top else directory
    paths = [path.relative_to(root).as_posix() for path in sources(task_file, root)]
    commit = _git(root, "log", "-1", "--format=%H", "--", *paths) if top else ""
    return Provenance(
        author=task.author or _author(root, commit),
        reviewer=task.reviewer,
        sources={path: hashlib.sha256((root / path).read_bytes()).hexdigest() for path in paths},
        commit=commit,
        uncommitted=_uncommitted(root, paths) if commit else [],
        versions={name: _version(name) for name in DISTRIBUTIONS},
    )


def sources(task_file: Path, root: Path) -> list[Path]:
    """The task file and the local modules it imports, anywhere in their text, sorted after it.

    Local is what lies below `root`, outside an installation's site-packages. The
    imports are read, not executed: what a file computes to import is not seen.
    """
    bases = [
        task_file.parent,
        *(base for base in map(Path, sys.path) if base.is_absolute() and _below(base, root)),
        *(parent for parent in task_file.parents if parent == root or _below(parent, root)),
    ]
    found = {task_file}
    waiting = [task_file]
    while waiting:
        path = waiting.pop()
        for module, level in _imports(path.read_text(errors="replace")):
            places = [_ancestor(path, level)] if level else bases
            for imported in _files(module, places):
                if imported not in found and _is_local(imported, root):
                    found.add(imported)
                    waiting.append(imported)
    return [task_file, *sorted(found - {task_file})]


def _imports(source: str) -> Iterator[tuple[str, int]]:
    """(dotted name, level) of all import statements; `from a import b` may mean a or a.b."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, 0) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            for alias in node.names:
                yield f"{base}.{alias.name}".lstrip("."), node.level


def _files(module: str, bases: Iterable[Path]) -> list[Path]:
    """The files that an import of the module executes: packages on the way, and itself."""
    parts = module.split(".")
    if parts[0] in sys.stdlib_module_names or parts[0] == _TOOLKIT:
        return []
    for base in bases:
        files = []
        place = base
        for part in parts:
            place = place / part
            candidates = (place / "__init__.py", place.with_name(f"{part}.py"))
            files += [candidate for candidate in candidates if candidate.is_file()][:1]
            if not place.is_dir():
                break
        if files:
            return [file.resolve() for file in files]
    return []


def _ancestor(path: Path, level: int) -> Path:
    return path.parents[min(level, len(path.parents)) - 1]


def _below(path: Path, root: Path) -> bool:
    return path.resolve().is_relative_to(root)


def _is_local(path: Path, root: Path) -> bool:
    installed = [Path(sysconfig.get_path(name)).resolve() for name in ("purelib", "platlib")]
    return _below(path, root) and not any(path.is_relative_to(place) for place in installed)


def _uncommitted(root: Path, paths: list[str]) -> list[str]:
    changed = _git(
        root, "-c", "core.quotePath=false", "diff", "--name-only", "HEAD", "--", *paths
    ).splitlines()
    tracked = _git(
        root,
        "-c",
        "core.quotePath=false",
        "ls-tree",
        "-r",
        "--name-only",
        "--full-tree",
        "HEAD",
        "--",
        *paths,
    ).splitlines()
    return [path for path in paths if path in changed or path not in tracked]


def _author(root: Path, commit: str) -> str:
    if commit:
        return _git(root, "show", "-s", "--format=%an <%ae>", commit)
    name, email = _git(root, "config", "user.name"), _git(root, "config", "user.email")
    return f"{name} <{email}>" if name and email else name


def _git(directory: Path, *arguments: str) -> str:
    """Git's answer; "" if there is none, or no git."""
    try:
        answer = subprocess.run(
            ["git", "-C", str(directory), *arguments],
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            timeout=_GIT_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return answer.stdout.strip() if answer.returncode == 0 else ""


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""
