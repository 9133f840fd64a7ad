"""The files that a device gets agree with each other and with the programs that read them."""

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.config import GatewayConfig, fields

UNITS = ("citygate-gateway.service", "citygate-city.service")


def test_the_example_config_shows_every_key_and_no_other(root: Path) -> None:
    known = {key for key, _ in fields(GatewayConfig)}
    shown: set[str] = set()
    section = ""
    for line in (root / "configs/gateway.toml").read_text("utf-8").splitlines():
        if header := re.match(r"(?:# )?\[(\[?)(\w+)\]", line):
            section = header[2] + ("[]" if header[1] else "")
        elif key := re.match(r"(?:# )?(\w+) = ", line):
            shown.add(f"{section}.{key[1]}")
    secrets = {key for key in known if key.rpartition(".")[2] in {"password", "token"}}  # belong in files
    assert shown == known - secrets


@pytest.mark.parametrize("unit", UNITS)
def test_a_unit_is_hardened(unit: str, root: Path) -> None:
    text = (root / "deploy/systemd" / unit).read_text("utf-8")
    for setting in (
        "DynamicUser=yes",
        "NoNewPrivileges=yes",
        "ProtectSystem=strict",
        "ProtectHome=yes",
        "CapabilityBoundingSet=",
        "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX",
        "SystemCallFilter=@system-service",
        "MemoryDenyWriteExecute=yes",
    ):
        assert f"\n{setting}\n" in text
    assert re.search(r"^MemoryMax=\d+M$", text, re.MULTILINE)
    assert re.search(r"^StateDirectory=citygate", text, re.MULTILINE)


def test_the_gateway_unit_hands_over_the_secrets_that_its_config_names(root: Path) -> None:
    unit = (root / "deploy/systemd/citygate-gateway.service").read_text("utf-8")
    credentials = dict(re.findall(r"^LoadCredential=([\w-]+):(\S+)$", unit, re.MULTILINE))
    config = (root / "configs/gateway.toml").read_text("utf-8")
    named = re.findall(r'^\w+_file = "(.+)"$', config, re.MULTILINE)
    assert named
    assert {Path(name).name: f"/etc/citygate/{name}" for name in named} == credentials


@pytest.mark.parametrize("unit", UNITS)
def test_systemd_accepts_a_unit(unit: str, root: Path, tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not installed")
    text = (root / "deploy/systemd" / unit).read_text("utf-8")
    installed = tmp_path / unit
    installed.write_text(text.replace("/opt/citygate/bin/citygate", "/bin/true"), "utf-8")
    for arguments in (["verify"], ["security", "--offline=true", "--threshold=15"]):
        result = subprocess.run(
            [analyze, *arguments, str(installed)], capture_output=True, text=True, check=False, timeout=60
        )
        assert result.returncode == 0, result.stdout + result.stderr


def test_broker_and_gateway_agree_on_how_much_is_in_flight(root: Path) -> None:
    config = (root / "deploy/mosquitto/mosquitto.conf").read_text("utf-8")
    in_flight = re.search(r"^max_inflight_messages (\d+)$", config, re.MULTILINE)
    receive_max = dict(fields(GatewayConfig))["mqtt.receive_max"].default
    assert in_flight is not None
    assert int(in_flight[1]) == receive_max


def test_links_in_the_deployment_guide_lead_somewhere(root: Path) -> None:
    guide = (root / "deploy/README.md").read_text("utf-8")
    for target in re.findall(r"\]\(([^)#]+)", guide):
        assert target.startswith("https://") or (root / "deploy" / target).exists(), target


def test_the_tls_example_is_a_working_listener(
    root: Path, tmp_path: Path, program: Callable[[str, str], str], free_port: Callable[[], int]
) -> None:
    mosquitto, openssl = program("mosquitto", "mosquitto"), program("openssl", "openssl")
    subscribe = program("mosquitto_pub", "mosquitto-clients")
    guide = (root / "deploy/README.md").read_text("utf-8")
    # The guide's own commands, so that the guide is tried.
    made = re.search(r"^```sh\n(openssl .+?)^```", guide, re.MULTILINE | re.DOTALL)
    assert made is not None
    commands = made[1].replace("gw-1.example.org", "localhost").replace("openssl ", f"{openssl} ")
    subprocess.run(["sh", "-ec", commands], cwd=tmp_path, check=True, capture_output=True, timeout=60)
    port = free_port()
    listener = (root / "deploy/mosquitto/conf.d/tls.conf.example").read_text("utf-8")
    config = tmp_path / "mosquitto.conf"
    config.write_text(
        listener.replace("listener 8883", f"listener {port} 127.0.0.1").replace("/etc/mosquitto/certs", str(tmp_path))
        + "allow_anonymous true\nuser root\n",
        "utf-8",
    )
    broker = subprocess.Popen([mosquitto, "-c", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        publish = [subscribe, "-h", "localhost", "-p", str(port), "--cafile", "ca.crt", "-q", "1", "-t", "a", "-m", "b"]
        for _ in range(50):
            result = subprocess.run(publish, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=20)
            if result.returncode == 0:
                break
        assert result.returncode == 0, result.stderr
    finally:
        broker.kill()
        broker.wait()
