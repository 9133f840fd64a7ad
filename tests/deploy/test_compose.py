"""docker-compose.yml: what it starts is healthy, hardened, keeps its data, and knows no secret."""

import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ONE_SHOT = {"secrets", "tokens", "broker-data"}
LASTING = {"mosquitto", "influxdb", "gateway", "city"}
SECRET_NAME = re.compile(r"PASSWORD|TOKEN|SECRET", re.IGNORECASE)


@pytest.fixture(scope="module")
def compose(root: Path) -> dict[str, Any]:
    """The compose file, merged."""
    content: dict[str, Any] = yaml.safe_load((root / "docker-compose.yml").read_text("utf-8"))
    return content


def test_the_site_has_a_broker_a_store_a_gateway_and_a_city_view(compose: dict[str, Any]) -> None:
    assert set(compose["services"]) == ONE_SHOT | LASTING


def test_every_lasting_service_has_a_health_check_and_is_started_again(compose: dict[str, Any]) -> None:
    for name in LASTING:
        service = compose["services"][name]
        assert service["healthcheck"]["test"][0] == "CMD", name
        assert service["restart"] == "unless-stopped", name
        assert service["mem_limit"], name


def test_no_service_can_gain_rights_or_write_to_its_image(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        if name in LASTING:
            assert "cap_add" not in service, name
            assert service.get("user", "citygate") != "0:0", name


def test_data_and_secrets_live_in_named_volumes(compose: dict[str, Any]) -> None:
    used = {mount["source"] for _, mount in _mounts(compose) if not mount["source"].startswith(".")}
    assert used == set(compose["volumes"])
    kept = {(name, mount["target"]) for name, mount in _mounts(compose) if not mount["source"].startswith(".")}
    assert {
        ("mosquitto", "/var/lib/mosquitto"),
        ("influxdb", "/var/lib/influxdb2"),
        ("gateway", "/var/lib/citygate"),
        ("city", "/var/lib/citygate"),
    } <= kept


def test_a_lasting_service_reads_its_own_secrets_and_no_others(compose: dict[str, Any]) -> None:
    own = {"mosquitto": "broker", "influxdb": "influxdb", "gateway": "gateway", "city": "city"}
    for name, mount in _mounts(compose):
        if name in LASTING and mount["source"].startswith("secrets-"):
            assert mount["source"] == f"secrets-{own[name]}"
            assert mount["read_only"], name


def test_mounted_files_exist(compose: dict[str, Any], root: Path) -> None:
    for _, mount in _mounts(compose):
        if mount["source"].startswith("."):
            assert (root / mount["source"]).exists(), mount["source"]
            assert mount["read_only"], mount["source"]
    for service in compose["services"].values():
        if build := service.get("build"):
            dockerfile = (root / build["dockerfile"]).read_text("utf-8")
            assert re.search(rf"^FROM \S+ AS {build['target']}$", dockerfile, re.MULTILINE)


def test_nothing_the_image_is_built_from_is_left_out(root: Path) -> None:
    dockerfile = (root / "deploy/Dockerfile").read_text("utf-8")
    admitted = re.findall(r"^!(.+)$", (root / "deploy/Dockerfile.dockerignore").read_text("utf-8"), re.MULTILINE)
    for line in re.findall(r"^COPY (?!--from)(.+)$", dockerfile, re.MULTILINE):
        for source in line.split()[:-1]:
            assert source == "." or any(Path(source).is_relative_to(name) for name in admitted), source
    for name in admitted:
        assert (root / name).exists(), f"{name} is admitted to the image but does not exist"


def test_only_mqtt_is_published_beyond_this_machine(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        for port in service.get("ports", []):
            assert name == "mosquitto" or port.startswith("127.0.0.1:"), f"{name} publishes {port}"


def test_no_secret_is_written_down(compose: dict[str, Any], root: Path) -> None:
    for name, service in compose["services"].items():
        for key, value in service.get("environment", {}).items():
            if SECRET_NAME.search(key):
                assert key.endswith("_FILE"), f"{name}: {key}"
                assert value.startswith("/etc/citygate/credentials/"), f"{name}: {key}"
    for variable in re.findall(r"\$\{(\w+)", (root / "docker-compose.yml").read_text("utf-8")):
        assert not SECRET_NAME.search(variable), variable
    for file in root.glob("configs/**/*.toml"):
        for key, value in _leaves(tomllib.loads(file.read_text("utf-8"))):
            assert not SECRET_NAME.search(key) or key.endswith("_file"), f"{file.name}: {key} = {value!r}"


def test_the_compose_client_accepts_the_file(root: Path) -> None:
    command = _compose_client()
    result = subprocess.run(
        [*command, "-f", str(root / "docker-compose.yml"), "config", "--quiet"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr


def _compose_client() -> list[str]:
    if docker := shutil.which("docker"):
        probe = subprocess.run([docker, "compose", "version"], capture_output=True, check=False, timeout=60)
        if probe.returncode == 0:
            return [docker, "compose"]
    pytest.skip("the docker client with its compose plugin (version 2) is not installed")


def _mounts(compose: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, service in compose["services"].items():
        for volume in service.get("volumes", []):
            if isinstance(volume, dict):
                yield name, {"read_only": False} | volume
            else:
                source, target, *mode = volume.split(":")
                yield name, {"source": source, "target": target, "read_only": mode == ["ro"]}


def _leaves(tree: object, key: str = "") -> Iterator[tuple[str, object]]:
    if isinstance(tree, dict):
        for name, value in tree.items():
            yield from _leaves(value, name)
    elif isinstance(tree, list):
        for value in tree:
            yield from _leaves(value, key)
    else:
        yield key, tree
