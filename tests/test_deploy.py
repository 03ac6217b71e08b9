"""What is in deploy/, each by a tool that knows its format, and every command in it by our own parser."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from streamer.cli import COMMANDS, parse
from tests.requirements import COMPOSE_SCHEMA, hadolint_program, why_no_compose_schema, why_no_hadolint, why_no_systemd

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()


def _name(path: Path) -> str:
    return path.name


def _documents(path: Path) -> list[dict[str, Any]]:
    return [one for one in yaml.safe_load_all(path.read_text()) if one]


def _pods(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The pods that a manifest asks for, as manifests of their own."""
    spec = document["spec"]
    templates = [spec["template"]] if "template" in spec else []
    if document["kind"] == "RayCluster":
        templates = [spec["headGroupSpec"]["template"], *(one["template"] for one in spec["workerGroupSpecs"])]
    for template in templates:
        yield {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "pod", **template.get("metadata", {})},
            **{"spec": template["spec"]},
        }


def _commands() -> list[tuple[str, list[str]]]:
    """(where, words) of every `leukostream …` in deploy/."""
    found = []
    for name, service in COMPOSE["services"].items():
        if "entrypoint" not in service and "leukostream" in service["image"]:
            found.append((f"compose {name}", shlex.split(_filled(service["command"]))))
        test = service.get("healthcheck", {}).get("test")
        if test:
            found.append((f"compose {name} health", shlex.split(test.partition(" > ")[0])[1:]))
    for path in UNITS:
        for line in re.findall(r"^Exec\w+=\S+/leukostream (.*)$", path.read_text(), re.MULTILINE):
            words = line.replace("${TARGET}", "mqtts://b").replace("${ENDPOINT}", "tcp://s:1")
            found.append((path.name, shlex.split(words)))
    for path in MANIFESTS:
        containers = [
            one for document in _documents(path) for pod in _pods(document) for one in pod["spec"]["containers"]
        ]
        found += [(path.name, one["args"]) for one in containers if "args" in one]
    health = re.search(r'"leukostream (subscribe .*?) > /dev/null"', DOCKERFILE)
    assert health is not None
    return [*found, ("Dockerfile health", shlex.split(health[1]))]


def _filled(text: str) -> str:
    """A line of compose with its variables at their defaults."""
    return re.sub(r"\$\{\w+(:-|:\?)?([^}]*)\}", lambda found: found[2] if found[1] == ":-" else "sim:", text)


@pytest.mark.parametrize(("where", "words"), _commands(), ids=[where for where, _ in _commands()])
def test_every_command_is_one_that_the_parser_takes(where: str, words: list[str]) -> None:
    if words[0] not in COMMANDS:
        pytest.skip(f"{where}: {words[0]} is no command of this version")
    parse(words)


@pytest.mark.parametrize("path", UNITS, ids=_name)
def test_systemd_takes_the_units_and_finds_them_hardened(path: Path, tmp_path: Path) -> None:
    if (why_not := why_no_systemd()) is not None:
        pytest.skip(f"systemd-analyze is not installed: {why_not}")
    program = tmp_path / "leukostream"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    unit = tmp_path / path.name
    unit.write_text(path.read_text().replace("/opt/leukostream/bin/leukostream", str(program)))
    for words in (["verify", "--man=no"], ["security", "--offline=yes", "--threshold=35", "--no-pager"]):
        done = subprocess.run(["systemd-analyze", *words, str(unit)], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        assert path.stem not in done.stderr, done.stderr


@pytest.mark.parametrize("path", MANIFESTS, ids=_name)
def test_kubernetes_takes_the_manifests(path: Path) -> None:
    """What it has no schema for is of an operator: the pods in it are checked."""
    kubernetes = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    documents = _documents(path)
    assert documents
    for document in documents:
        if document["apiVersion"] != "ray.io/v1":
            kubernetes.validate(document, kubernetes.latest_version(), strict=True)
        for pod in _pods(document):
            kubernetes.validate(pod, kubernetes.latest_version(), strict=True)
            assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
            for container in [*pod["spec"]["containers"], *pod["spec"].get("initContainers", [])]:
                assert container["securityContext"]["allowPrivilegeEscalation"] is False
                assert "memory" in container["resources"]["limits"]


def test_the_ray_of_the_cluster_is_the_one_that_was_tested() -> None:
    tested = re.search(r"^ray==(.*)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    if tested is None:
        pytest.skip("this version has no fleet")
    [cluster] = _documents(DEPLOY / "kubernetes" / "raycluster.yaml")
    assert cluster["spec"]["rayVersion"] == tested[1]


def test_compose_is_of_its_schema() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    if (why_not := why_no_compose_schema()) is not None:
        pytest.skip(f"the schema of compose files is not here: {why_not}")
    jsonschema.Draft7Validator(json.loads(COMPOSE_SCHEMA.read_text())).validate(COMPOSE)


def test_compose_names_what_is_there_and_opens_no_port_to_others() -> None:
    services, volumes = COMPOSE["services"], COMPOSE["volumes"]
    for name, service in services.items():
        for other in service.get("depends_on", ()):
            assert other in services, name
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:"), f"{name}: {port} is open beyond this machine"
        for volume in service.get("volumes", ()):
            place = volume.split(":")[0]
            assert place in volumes or place.startswith("./"), f"{name}: {volume}"
        for endpoint in re.findall(r"tcp://([a-z]+):", str(service.get("command", ""))):
            assert endpoint in services, name


def test_the_image_runs_as_nobody_in_particular_and_has_all_that_it_copies() -> None:
    """What a linter of Dockerfiles looks for, and that the files are in the context."""
    stages = re.split(r"^FROM ", DOCKERFILE, flags=re.MULTILINE)[1:]
    assert len(stages) == 2
    assert all(re.match(r"python:\d\.\d+-slim\b", stage) for stage in stages), "a version, and not the newest"
    assert re.search(r"^USER (?!0|root)\S+", stages[-1], re.MULTILINE)
    for word in ("HEALTHCHECK", "LABEL org.opencontainers.image.title", "STOPSIGNAL SIGTERM"):
        assert word in stages[-1]
    allowed = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.MULTILINE):
        for name in line.split()[:-1]:
            assert (ROOT / name).exists(), name
            assert f"!{name}" in allowed, name
    assert not re.search(r"https?://", DOCKERFILE), "it fetches from nowhere but the usual registries"


def test_hadolint_has_nothing_to_say_of_the_dockerfile() -> None:
    if (why_not := why_no_hadolint()) is not None:
        pytest.skip(f"hadolint is not installed: {why_not}")
    done = subprocess.run([str(hadolint_program()), str(DEPLOY / "Dockerfile")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
