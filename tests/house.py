"""The modules of this checkout and what each of them imports, read from their source."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

PACKAGES = ("android_stub", "device_plan", "nightshift", "server", "tflite_models")


@dataclass(frozen=True)
class Import:
    """One import statement, at the top of a module or inside a function.

    Attributes:
        module: Of the importer, e.g. "server.http.application".
        names: What is imported, dotted; `from a import b` may mean module a.b
            or an object of a, so both are here: ("a", "a.b").
        line: In the importer's file.
    """

    module: str
    names: tuple[str, ...]
    line: int

    def reaches(self, package: str) -> bool:
        """Whether it imports the module or package, or anything below it."""
        return any(name == package or name.startswith(package + ".") for name in self.names)

    def __str__(self) -> str:
        return f"{self.module}, line {self.line}, imports {self.names[-1]}"


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(package: str) -> list[Import]:
    """All imports in a package's modules except those only type checkers execute."""
    found: list[Import] = []
    for path in sorted((ROOT / package).rglob("*.py")):
        found += imports_of(
            path.read_text(), module_name(path), is_package=path.name == "__init__.py"
        )
    return found


def imports_of(source: str, module: str, *, is_package: bool = False) -> list[Import]:
    return [
        Import(module, names, line)
        for names, line in _names(ast.parse(source), module.split("."), is_package)
    ]


def _names(
    tree: ast.AST, module: list[str], is_package: bool
) -> Iterator[tuple[tuple[str, ...], int]]:
    for node in _executed(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield (alias.name,), node.lineno
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = len(module) - node.level + (1 if is_package else 0)
                base = ".".join([*module[:parents], *([base] if base else [])])
            for alias in node.names:
                yield (base, f"{base}.{alias.name}"), node.lineno
        elif isinstance(node, ast.Call):
            called = node.func
            name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
            if name in {"import_module", "__import__", "run_module"} and node.args:
                target = node.args[0]
                if isinstance(target, ast.Constant) and isinstance(target.value, str):
                    yield (target.value,), node.lineno


def _executed(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for other in node.orelse:
                yield other
                yield from _executed(other)
            continue
        yield node
        yield from _executed(node)
