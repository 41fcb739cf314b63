"""The rules of the house: who may import whom, and where TensorFlow may be loaded.

They are read from the source, so that an import inside a function counts too,
and checked once more by loading the modules that must stay light.
"""

import ast
import configparser
import functools
import json
import re
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from tests.house import PACKAGES, ROOT, Import, imports, imports_of

#: What executes TensorFlow's Python code.
TENSORFLOW = (
    "keras",
    "tensorflow",
    "tensorflow_federated",
    "tensorflow_model_optimization",
    "tensorflow_privacy",
    "tensorflow_probability",
)

#: The only places that may import it, even lazily.
MAY_IMPORT_TENSORFLOW = ("tflite_models", "device_plan.compiler", "server.model_update.process")

#: The only places that may execute a TFLite graph.
MAY_IMPORT_TFLITE = ("android_stub", "device_plan.compiler", "tflite_models")

#: What the server and the devices share: formats and wire messages.
FORMATS = (
    "device_plan.archive",
    "device_plan.checkpoint",
    "device_plan.cohort",
    "device_plan.plan_pb2",
    "device_plan.runtimes",
    "device_plan.signing",
    "device_plan.stored_zip",
    "device_plan.wire_pb2",
)

#: Who provides what of the namespace "google".
GOOGLE = {
    "google.api_core": "google-api-core",
    "google.auth": "google-auth",
    "google.cloud.storage": "google-cloud-storage",
    "google.protobuf": "protobuf",
}

#: What only some servers have installed, and the only places that may import it.
EXTRAS = {"cluster": ("server.cluster",), "postgres": ("server.storage.postgresql",)}

#: What the pure state machines may not touch: clocks, threads, sockets, disks.
IMPURE = (
    "asyncio",
    "concurrent",
    "datetime",
    "io",
    "logging",
    "multiprocessing",
    "os",
    "pathlib",
    "secrets",
    "shutil",
    "signal",
    "socket",
    "sqlite3",
    "subprocess",
    "tempfile",
    "threading",
    "time",
    "uuid",
    "flask",
    "sqlalchemy",
    "urllib3",
)


def below(module: str, places: tuple[str, ...]) -> bool:
    return any(module == place or module.startswith(place + ".") for place in places)


def first_party(found: Import) -> bool:
    return any(found.reaches(package) for package in PACKAGES)


def within(found: Import, package: str, *others: str) -> bool:
    """Whether a first-party import stays in the package or reaches one of the others."""
    return not first_party(found) or any(found.reaches(place) for place in (package, *others))


def assert_none(broken: list[Import]) -> None:
    assert not broken, "\n" + "\n".join(map(str, broken))


def test_every_package_of_the_house_is_there() -> None:
    for package in PACKAGES:
        assert (ROOT / package / "__init__.py").is_file(), package
        assert imports(package) or package == "tflite_models", package


def test_tflite_models_imports_nobody_here() -> None:
    assert_none([found for found in imports("tflite_models") if not within(found, "tflite_models")])


def test_device_plan_imports_only_tflite_models() -> None:
    broken = [
        found
        for found in imports("device_plan")
        if not within(found, "device_plan", "tflite_models")
    ]
    assert_none(broken)


def test_the_formats_of_device_plan_import_neither_its_compiler_nor_the_models() -> None:
    broken = [
        found
        for found in imports("device_plan")
        if below(found.module, FORMATS) and not within(found, *FORMATS)
    ]
    assert_none(broken)


@pytest.mark.parametrize("package", ["server", "android_stub"])
def test_server_and_devices_share_only_formats(package: str) -> None:
    assert_none([found for found in imports(package) if not within(found, package, *FORMATS)])


def test_the_command_line_imports_only_commands_formats_and_the_admin_client() -> None:
    commands = ("device_plan.commands", "server.commands", "android_stub.commands")
    broken = [
        found
        for found in imports("nightshift")
        if not within(found, "nightshift", "server.admin_client", *commands, *FORMATS)
    ]
    assert_none(broken)


@pytest.mark.parametrize("package", PACKAGES)
def test_tensorflow_is_imported_only_where_it_may_be(package: str) -> None:
    broken = [
        found
        for found in imports(package)
        if any(found.reaches(name) for name in TENSORFLOW)
        and not below(found.module, MAY_IMPORT_TENSORFLOW)
    ]
    assert_none(broken)


@pytest.mark.parametrize("package", PACKAGES)
def test_graphs_are_executed_only_on_devices_and_by_the_compilers_checks(package: str) -> None:
    broken = [
        found
        for found in imports(package)
        if found.reaches("tflite_runtime") and not below(found.module, MAY_IMPORT_TFLITE)
    ]
    assert_none(broken)


def test_the_protocols_state_machines_are_pure() -> None:
    broken = [
        found
        for found in imports("server/protocol")
        if any(found.reaches(name) for name in IMPURE)
        or not within(found, "server.protocol", *FORMATS)
    ]
    assert_none(broken)


def test_the_protocols_state_machines_use_no_randomness_of_their_own() -> None:
    offenders = []
    for path in sorted((ROOT / "server" / "protocol").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            # random.Random is a type and a seeded source; random.random() is the global one.
            if (
                isinstance(node, ast.Attribute)
                and ast.unparse(node.value) == "random"
                and node.attr != "Random"
            ):
                offenders.append(f"{path.name}, line {node.lineno}: {ast.unparse(node)}")
    assert not offenders


def test_the_reader_of_imports_sees_every_form() -> None:
    source = """
import a.b
from c import d
from . import e
from .f import g
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    import only_for_types
def later():
    import h
    importlib.import_module("i.j")
    __import__("k")
class C:
    try:
        from ..l import m
    except ImportError:
        import n
"""
    found = {imported.names[-1] for imported in imports_of(source, "p.q.r")}
    expected = {"a.b", "c.d", "p.q.e", "p.q.f.g", "typing.TYPE_CHECKING"}
    assert found == expected | {"h", "i.j", "k", "p.l.m", "n"}
    assert imports_of("from . import e", "p.q", is_package=True)[0].names == ("p.q", "p.q.e")


def declared(section: str, option: str) -> set[str]:
    """The names of the distributions that setup.cfg requires there."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    lines = setup[section][option].split("\n")
    matches = [re.match(r"[A-Za-z0-9._-]+", line) for line in lines]
    return {match[0] for match in matches if match}


@functools.cache
def providers_by_module() -> Mapping[str, list[str]]:
    return packages_distributions()


def distributions(found: Import) -> set[str]:
    """Who provides the third-party module that is imported; empty for our own and Python's."""
    top = found.names[0].partition(".")[0]
    if top in sys.stdlib_module_names or top in {*PACKAGES, "tests", "examples", "benchmarks"}:
        return set()
    if top == "google":
        # A namespace that many distributions share.
        owners = [owner for part, owner in GOOGLE.items() if found.reaches(part)]
        assert owners, found
        return set(owners)
    if top == "grpc_tools":
        return {"grpcio-tools"}
    providers = providers_by_module().get(top, [top])
    return {re.sub(r"[-_.]+", "-", name).lower() for name in providers}


def required_by_extras(module: str | None = None) -> set[str]:
    """What the extras require that a module may import, or all of them."""
    return {
        name
        for extra, places in EXTRAS.items()
        if module is None or below(module, places)
        for name in declared("options.extras_require", extra)
    }


def test_what_is_imported_is_required_in_setup_cfg() -> None:
    required = declared("options", "install_requires")
    undeclared = [
        found
        for package in PACKAGES
        for found in imports(package)
        if (providers := distributions(found))
        and not providers & (required | required_by_extras(found.module))
    ]
    assert_none(undeclared)


def test_what_is_required_in_setup_cfg_is_imported() -> None:
    imported: set[str] = set()
    for package in PACKAGES:
        for found in imports(package):
            imported |= distributions(found)
    assert declared("options", "install_requires") | required_by_extras() <= imported


def test_what_tests_examples_and_benchmarks_import_is_required_in_setup_cfg() -> None:
    required = declared("options", "install_requires") | required_by_extras()
    required |= declared("options.extras_require", "dev")
    undeclared = [
        found
        for directory in ("tests", "examples", "benchmarks")
        for found in imports(directory)
        # What runs in the environment that the benchmark makes for Flower.
        if not below(found.module, ("benchmarks.flower_app",))
        if (providers := distributions(found)) and not providers & required
    ]
    assert_none(undeclared)


def test_everything_that_setup_cfg_requires_is_locked() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    locked = set(re.findall(r"^([a-z0-9.-]+)==", lock, re.MULTILINE))
    required = declared("options", "install_requires") | required_by_extras()
    required |= declared("options.extras_require", "dev")
    assert required <= locked
    assert not re.search(r"^-|://|^\.", lock, re.MULTILINE), "the lock names an index or a path"


def loaded_after(statements: str) -> set[str]:
    """The top-level modules that a fresh interpreter has loaded after some statements."""
    script = f"{statements}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    run = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    return {name.partition(".")[0] for name in json.loads(run.stdout.splitlines()[-1])}


def load_all(package: str, *, but: tuple[str, ...] = ()) -> str:
    modules = {
        path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
        for path in (ROOT / package.replace(".", "/")).rglob("*.py")
    }
    chosen = sorted(
        name.removesuffix(".__init__")
        for name in modules
        if not name.endswith(".__main__") and not below(name, but)
    )
    return "\n".join(f"import {name}" for name in chosen)


def test_the_server_loads_without_tensorflow_tflite_or_the_devices() -> None:
    # Alembic loads the migrations itself, and they work only inside it.
    apart = ("server.model_update.process", "server.storage.migrations")
    loaded = loaded_after(load_all("server", but=apart))
    assert "flask" in loaded
    assert not loaded & {*TENSORFLOW, "tflite_runtime", "android_stub"}


def test_the_device_runtime_loads_without_tensorflow_flask_or_the_server() -> None:
    loaded = loaded_after(load_all("android_stub"))
    assert "device_plan" in loaded
    assert not loaded & {*TENSORFLOW, "flask", "sqlalchemy", "server"}


def test_the_formats_load_without_tensorflow() -> None:
    loaded = loaded_after("\n".join(f"import {name}" for name in FORMATS))
    assert not loaded & {*TENSORFLOW, "tflite_runtime", "tflite_models"}


@pytest.mark.parametrize("package", ["device_plan", "server", "android_stub"])
def test_no_help_text_needs_tensorflow(package: str) -> None:
    assert not loaded_after(f"import {package}.commands") & set(TENSORFLOW)


def test_the_root_help_loads_no_command() -> None:
    loaded = loaded_after(
        "import contextlib, io\n"
        "from nightshift.cli import main\n"
        "with contextlib.redirect_stdout(io.StringIO()):\n"
        "    assert main(['--help']) == 0"
    )
    assert not loaded & {
        *TENSORFLOW,
        *("numpy", "flask", "sqlalchemy", "rich"),
        *("server", "device_plan", "android_stub"),
    }


@pytest.mark.parametrize("name", ["wire", "plan"])
def test_the_generated_messages_are_those_of_the_proto_files(name: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I.", f"--python_out={tmp_path}"]
    command += [f"--pyi_out={tmp_path}", f"device_plan/{name}.proto"]
    subprocess.run(command, cwd=ROOT, check=True)
    for suffix in ("_pb2.py", "_pb2.pyi"):
        generated = (tmp_path / "device_plan" / f"{name}{suffix}").read_text()
        committed = (ROOT / "device_plan" / f"{name}{suffix}").read_text()
        assert committed == generated, f"{name}{suffix} is out of date: run `make proto`"
