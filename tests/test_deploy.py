"""What is said to Docker, Compose and Kubernetes, as far as it can be judged without any of them.

Held here: that what is named is there, that nothing has more rights than it needs, that no secret is written down, and that what is said
to Kubernetes is of the form that it takes. Docker and Compose judge their own files in `make containers`.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import click
import kubernetes_validate
import pytest
import yaml

from imgproxy import cli, config

ROOT = Path(__file__).parent.parent
DOCKERFILES = (ROOT / "Dockerfile", ROOT / "conf" / "swift" / "Dockerfile")
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
KUBERNETES = ROOT / "conf" / "kubernetes"
VERSION = "1.37"
"""The Kubernetes whose schemas the base is held against; strictly, so that a word which it does not know is a fault."""
USER = 10001
KNOWN = {config.variable(name) for name in config.KINDS} | config.NOT_OURS_TO_READ
CREDENTIALS = {name for name in config.SECRETS if not name.startswith("IMG_")} | {f"{name}_FILE" for name in config.SECRETS}


def lines(dockerfile: Path) -> list[str]:
    """The instructions, each in one line."""
    text = re.sub(r"^#.*\n", "", dockerfile.read_text(), flags=re.MULTILINE)
    return [line for line in re.sub(r"\\\n\s*", "", text).splitlines() if line]


def manifests() -> Iterator[tuple[str, dict[str, Any]]]:
    kustomization = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())
    assert sorted([*kustomization["resources"], "kustomization.yaml"]) == sorted(file.name for file in KUBERNETES.iterdir())
    for file in kustomization["resources"]:
        for one in yaml.safe_load_all((KUBERNETES / file).read_text()):
            yield f"{one['kind']}/{one['metadata']['name']}", one


MANIFESTS = dict(manifests())
PODS = {name: one["spec"]["template"] for name, one in MANIFESTS.items() if one["kind"] in ("Deployment", "StatefulSet")}


def is_a_call(words: list[str]) -> bool:
    """Whether the command line takes these words."""
    command: click.Command = cli.main
    name, *options = words
    assert isinstance(command, click.Group)
    command = command.commands[name]
    command.make_context(name, list(options))
    return True


# ---- Docker


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_an_image_is_built_by_hashes_from_named_bases_and_runs_without_root(file: Path) -> None:
    said = lines(file)
    assert not re.search(r"^# *syntax", file.read_text(), re.MULTILINE)
    assert all(re.fullmatch(r"FROM [a-z]+:[0-9a-z.-]+( AS [a-z]+)?", line) for line in said if line.startswith("FROM"))
    for line in said:
        for install in re.findall(r"pip[^&]*? (?:install|wheel) [^&]*", line):
            assert "--require-hashes" in install or "--no-index" in install, install
            assert "--no-index" in install or "--mount=type=secret,id=pip_conf" in line
        assert "required=true" not in line, "a secret is never required"
        assert not re.match("(ENV|ARG).*(TOKEN|KEY|PASSWORD|SECRET)", line)
    last = said[max(place for place, line in enumerate(said) if line.startswith("FROM")) :]
    assert f"USER {USER}:{USER}" in last
    assert any(line.startswith("HEALTHCHECK") for line in last)


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_what_an_image_copies_is_there_and_is_given_to_the_builder(file: Path) -> None:
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for line in lines(file):
        if line.startswith("COPY") and "--from" not in line:
            for source in line.split()[1:-1]:
                assert (ROOT / source).exists(), source
                assert any(source == one or source.startswith(f"{one}/") for one in allowed), source


def test_nothing_is_given_to_the_builder_that_is_not_there() -> None:
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        assert not line.startswith("!") or (ROOT / line[1:]).exists(), line


def test_the_image_has_the_configuration_that_the_package_has() -> None:
    copied = {word for line in lines(ROOT / "Dockerfile") for word in line.split() if word.startswith("conf/") and word != "conf/"}
    assert copied == {str(file.relative_to(ROOT)) for file in (ROOT / "conf").iterdir() if file.is_file()}


def test_what_the_image_runs_are_commands_of_ours() -> None:
    said = lines(ROOT / "Dockerfile")
    words = {line.split()[0]: re.findall(r'"([^"]+)"', line) for line in said if line.startswith(("ENTRYPOINT", "CMD", "HEALTHCHECK"))}
    assert words["ENTRYPOINT"] == ["imgproxy"]
    assert is_a_call(words["CMD"])
    assert words["HEALTHCHECK"][0] == "imgproxy"
    assert is_a_call(words["HEALTHCHECK"][1:])
    assert f"FROM python:{tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']['requires-python'][2:]}-slim-bookworm" in said


# ---- Compose


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_no_service_has_more_rights_than_it_needs(name: str) -> None:
    service = COMPOSE["services"][name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "cap_add", "network_mode", "pid", "user"} & set(service)
    assert name == "edge" or "ports" not in service
    assert name == "secrets" or "healthcheck" in service or name == "swift"  # its image has one
    for volume in service.get("volumes", []):
        volume_name, place, *how = volume.split(":")
        assert volume_name in COMPOSE["volumes"]
        assert place.startswith("/")
        assert volume_name != "secrets" or name == "secrets" or how == ["ro"]


def test_the_services_wait_for_what_they_need() -> None:
    for service in COMPOSE["services"].values():
        for needed, how in service.get("depends_on", {}).items():
            assert how["condition"] == ("service_completed_successfully" if needed == "secrets" else "service_healthy")
            assert needed in COMPOSE["services"]
    nodes = COMPOSE["services"]["edge"]["environment"]["IMG_EDGE_NODES"].split(",")
    assert {node.partition(":")[0] for node in nodes} == set(COMPOSE["services"]["edge"]["depends_on"])


@pytest.mark.parametrize("name", ["edge", "node1", "node2", "worker"])
def test_the_services_run_commands_with_settings_that_exist(name: str) -> None:
    service = COMPOSE["services"][name]
    assert service["image"] == "imgproxy"
    assert is_a_call(service["command"])
    test = service["healthcheck"].get("test")
    assert test is None or is_a_call(test[2:])
    said = {key: str(value) for key, value in service["environment"].items()}
    assert set(said) <= KNOWN | CREDENTIALS | {"ST_AUTH", "ST_USER"}
    plain = {key: value for key, value in said.items() if "$" not in value and not key.endswith("_FILE")}
    assert config.load(None, plain).warnings == ()
    assert int(re.sub("s$", "", service["stop_grace_period"])) > config.Settings().grace


def test_nothing_in_memory_grows_without_bounds() -> None:
    (data,) = COMPOSE["services"]["edge"]["tmpfs"]
    assert "size=1g" in data.split(":")[1].split(",")


def test_no_secret_is_written_down() -> None:
    for service in COMPOSE["services"].values():
        for key, value in service.get("environment", {}).items():
            if key in config.SECRETS:
                assert value == f"${{{key}:-}}"
    assert not any(one["kind"] == "Secret" for one in MANIFESTS.values())
    assert not set(config.SECRETS) & set(MANIFESTS["ConfigMap/imgproxy"]["data"])


# ---- Kubernetes


@pytest.mark.parametrize("name", MANIFESTS)
def test_kubernetes_takes_every_document(name: str) -> None:
    assert kubernetes_validate.validate(MANIFESTS[name], VERSION, strict=True) == VERSION


def _of_another_kind(one: dict[str, Any]) -> None:
    one["spec"]["replicas"] = "two"


def _misspelled(one: dict[str, Any]) -> None:
    (container,) = one["spec"]["template"]["spec"]["containers"]
    container["readynessProbe"] = container.pop("readinessProbe")


def _left_out(one: dict[str, Any]) -> None:
    del one["spec"]["selector"]


@pytest.mark.parametrize("spoil", [_of_another_kind, _misspelled, _left_out])
def test_a_planted_fault_is_seen_by_the_schema(spoil: Callable[[dict[str, Any]], None]) -> None:
    one = deepcopy(MANIFESTS["Deployment/imgproxy-edge"])
    spoil(one)
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(one, VERSION, strict=True)


@pytest.mark.parametrize("name", PODS)
def test_a_pod_has_no_more_rights_than_it_needs_and_says_what_it_needs(name: str) -> None:
    pod = PODS[name]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert {pod["securityContext"][one] for one in ("runAsUser", "runAsGroup", "fsGroup")} == {USER}
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["terminationGracePeriodSeconds"] > config.Settings().grace
    (container,) = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {"cpu", "memory"} <= set(container["resources"]["requests"])
    assert "memory" in container["resources"]["limits"]
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    assert [mount["mountPath"] for mount in container["volumeMounts"]] == ["/var/lib/imgproxy"]


@pytest.mark.parametrize("name", PODS)
def test_a_pod_runs_a_command_with_settings_that_exist_and_probes_that_are_answered(name: str) -> None:
    (container,) = PODS[name]["spec"]["containers"]
    assert is_a_call(container["args"])
    said = {one["name"]: one["value"] for one in container["env"] if "value" in one}
    data = MANIFESTS["ConfigMap/imgproxy"]["data"]
    given = {one["name"] for one in container["env"]} | set(data)
    assert given <= KNOWN | {"ST_AUTH", "ST_USER"}
    assert config.load(None, {**data, **said}).warnings == ()
    ports = {port["name"] for port in container.get("ports", [])}
    for probe in ("startupProbe", "livenessProbe"):
        assert probe in container
    for probe in [value for key, value in container.items() if key.endswith("Probe")]:
        if "httpGet" in probe:
            assert probe["httpGet"]["path"] in ("/healthz", "/readyz")
            assert probe["httpGet"]["port"] in ports
        elif "exec" in probe:
            assert is_a_call(probe["exec"]["command"][1:])
        else:
            assert probe["tcpSocket"]["port"] in ports
    assert container["livenessProbe"].get("httpGet", {}).get("path") != "/readyz", "a store that is away is no reason to restart"


def test_selectors_find_what_they_are_for() -> None:
    labels = {name: pod["metadata"]["labels"] for name, pod in PODS.items()}
    for name, one in MANIFESTS.items():
        spec = one.get("spec", {})
        wanted = spec.get("selector")
        if wanted is None:
            continue
        wanted = wanted.get("matchLabels", wanted)
        found = [pod for pod, has in labels.items() if wanted.items() <= has.items()]
        assert found == [name] if name in PODS else len(found) == 1, name
    for one in MANIFESTS.values():
        target = one.get("spec", {}).get("scaleTargetRef")
        assert target is None or f"{target['kind']}/{target['name']}" in PODS


def test_the_edge_knows_every_node_by_its_name() -> None:
    nodes = MANIFESTS["StatefulSet/imgproxy-node"]["spec"]
    (edge,) = PODS["Deployment/imgproxy-edge"]["spec"]["containers"]
    named = next(one["value"] for one in edge["env"] if one["name"] == "IMG_EDGE_NODES").split(",")
    assert named == [f"imgproxy-node-{number}.{nodes['serviceName']}:8080" for number in range(nodes["replicas"])]
    assert MANIFESTS[f"Service/{nodes['serviceName']}"]["spec"]["clusterIP"] == "None"
