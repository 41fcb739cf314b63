"""What deploy/ starts exists: every command, option, setting and secret in it."""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from ray.scripts.scripts import cli as ray_cli

from nightshift.cli import cli
from server.configuration import ServerConfiguration
from server.settings import settings
from tests.house import ROOT

DEPLOY = ROOT / "deploy"
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
KUBERNETES = [document for path in MANIFESTS for document in yaml.safe_load_all(path.read_text())]

#: Keys of the secret that deploy/README.md makes.
SECRET_KEYS = {"ray-token", "secrets.json", "database-url"}


@dataclass
class Started:
    """One container: what it runs and with which variables."""

    where: str
    command: list[str]
    variables: dict[str, str] = field(default_factory=dict)


def pods() -> Iterator[dict[str, Any]]:
    for document in KUBERNETES:
        if "template" in document.get("spec", {}):
            yield document


def containers_of_kubernetes() -> Iterator[Started]:
    (shared,) = [each["data"] for each in KUBERNETES if each["kind"] == "ConfigMap"]
    for pod in pods():
        for container in pod["spec"]["template"]["spec"]["containers"]:
            own = {each["name"]: each.get("value", "") for each in container.get("env", [])}
            command = container["command"] + container.get("args", [])
            yield Started(pod["metadata"]["name"], command, {**shared, **own})


def containers_of_compose() -> Iterator[Started]:
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    for name, service in compose["services"].items():
        if service["image"] == "nightshift":
            command = service.get("entrypoint", ["nightshift"]) + service["command"]
            yield Started(name, command, service["environment"])


STARTED = [*containers_of_kubernetes(), *containers_of_compose()]


def parameters_of(started: Started) -> tuple[click.Command, dict[str, Any]]:
    """Parsed by the program's own command line."""
    group: click.Command = {"nightshift": cli, "ray": ray_cli}[started.command[0]]
    context = click.Context(group)
    rest = started.command[1:]
    while isinstance(group, click.Group):
        name, found, rest = group.resolve_command(context, rest)
        assert found is not None, name
        group = found
    parsed = group.make_context(started.command[0], list(rest), resilient_parsing=False)
    return group, parsed.params


@pytest.mark.parametrize("started", STARTED, ids=lambda started: started.where)
def test_each_container_runs_a_command_that_exists_with_options_it_has(started: Started) -> None:
    command, parameters = parameters_of(started)
    if started.command[0] == "nightshift":
        assert command.name == "selector"
        assert parameters["public_url"]
        assert parameters["selector_id"]


@pytest.mark.parametrize("started", STARTED, ids=lambda started: started.where)
def test_each_variable_is_a_setting_with_an_allowed_value(started: Started) -> None:
    known = {setting.variable: setting for setting in settings(ServerConfiguration)}
    ours = {n: v for n, v in started.variables.items() if n.startswith("NIGHTSHIFT_")}
    assert set(ours) <= set(known)
    for name, value in ours.items():
        if value:
            setting = known[name]
            setting.check(setting.type(value))
    assert started.variables["RAY_AUTH_MODE"] == "token"


def test_prometheus_is_told_to_scrape_each_selector_and_nothing_else() -> None:
    labels = {pod["metadata"]["name"]: pod["spec"]["template"]["metadata"] for pod in pods()}
    told = {name: found.get("annotations", {}) for name, found in labels.items()}
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    told |= {name: service.get("labels", {}) for name, service in compose["services"].items()}
    for started in STARTED:
        if started.command[0] == "nightshift":
            _, parameters = parameters_of(started)
            assert told.pop(started.where) == {
                "prometheus.io/scrape": "true",
                "prometheus.io/path": "/metrics",
                "prometheus.io/port": str(parameters["port"]),
            }
    assert not any(told.values())


def test_selectors_are_given_time_to_drain() -> None:
    (selectors,) = [each for each in KUBERNETES if each["kind"] == "StatefulSet"]
    (shared,) = [each["data"] for each in KUBERNETES if each["kind"] == "ConfigMap"]
    pod = selectors["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    waits = float(container["lifecycle"]["preStop"]["exec"]["command"][1])
    drain = float(shared["NIGHTSHIFT_DRAIN_S"])
    assert pod["terminationGracePeriodSeconds"] >= waits + drain + 10
    for probe, path in (("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")):
        assert container[probe]["httpGet"]["path"] == path


def test_what_pods_refer_to_is_there() -> None:
    names = {(each["kind"], each["metadata"]["name"]) for each in KUBERNETES}
    for pod in pods():
        spec = pod["spec"]["template"]["spec"]
        assert ("ServiceAccount", spec["serviceAccountName"]) in names
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        for container in spec["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} <= set(volumes)
            for source in container["envFrom"]:
                assert ("ConfigMap", source["configMapRef"]["name"]) in names
            for variable in container.get("env", []):
                reference = variable["valueFrom"].get("secretKeyRef")
                assert reference is None or reference["key"] in SECRET_KEYS
        labels = pod["spec"]["template"]["metadata"]["labels"]
        assert pod["spec"]["selector"]["matchLabels"].items() <= labels.items()
    for budget in (each for each in KUBERNETES if each["kind"] == "PodDisruptionBudget"):
        wanted = budget["spec"]["selector"]["matchLabels"].items()
        assert any(wanted <= pod["spec"]["selector"]["matchLabels"].items() for pod in pods())


def test_each_selector_pod_has_an_address_of_its_own() -> None:
    (selectors,) = [each for each in KUBERNETES if each["kind"] == "StatefulSet"]
    (ingress,) = [each for each in KUBERNETES if each["kind"] == "Ingress"]
    services = {each["metadata"]["name"]: each for each in KUBERNETES if each["kind"] == "Service"}
    hosts = {rule["host"]: rule for rule in ingress["spec"]["rules"]}
    for number in range(selectors["spec"]["replicas"]):
        rule = hosts[f"selector-{number}.devices.example.org"]
        paths = {path["path"]: path["backend"]["service"] for path in rule["http"]["paths"]}
        assert {"/v1/sessions/", "/v1/blobs/"} <= set(paths)
        for backend in paths.values():
            selected = services[backend["name"]]["spec"]["selector"]
            assert selected == {"statefulset.kubernetes.io/pod-name": f"selector-{number}"}
    for rule in hosts.values():
        assert not any("admin" in path["path"] for path in rule["http"]["paths"])


def test_the_readme_makes_the_secrets_that_are_mounted() -> None:
    readme = (DEPLOY / "README.md").read_text()
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    for secret in compose["secrets"].values():
        name = Path(secret["file"]).name
        assert f"> {name}" in readme, name
    for key in SECRET_KEYS:
        assert f"{key}" in readme, key
    assert shlex.split("kubectl -n nightshift apply -f deploy/kubernetes")[-1] in readme
