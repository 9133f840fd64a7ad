"""The wheel: what a device or a server installs, with no build."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_wheel_holds_the_built_page_and_not_its_source(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert "gateway/city/web/dist/index.html" in names
    assert any(name.startswith("gateway/city/web/dist/assets/") and name.endswith(".js") for name in names)
    assert not [name for name in names if "node_modules" in name or "/web/src/" in name or name.endswith(".ts")]


def test_the_wheel_holds_everything_the_program_reads(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    wanted = {f"sensors/kinds/{path.name}" for path in (ROOT / "sensors/kinds").glob("*.toml")}
    wanted |= {f"gateway/configs/{name}" for name in ("demo.toml", "city.toml", "districts.geojson")}
    assert wanted <= names
    assert not [
        name for name in names if name.split("/")[0] not in {"gateway", "sensors"} and ".dist-info/" not in name
    ]


def test_the_wheel_runs_away_from_the_repository(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path)
    code = (
        "import gateway, pathlib, gateway.edge.agent, sys, sensors.kinds as k;"
        "print(pathlib.Path(gateway.__file__).parents[1], len(k.builtin()),"
        "sorted({'fastapi', 'starlette', 'uvicorn', 'sqlalchemy'} & sys.modules.keys()))"
    )
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split(maxsplit=1)[0] == str(tmp_path)
    assert done.stdout.strip().endswith(" []"), "the agent loads a web framework"


def test_the_wheel_asks_for_the_web_stack_only_as_an_extra(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
    lines = archive.read(name).decode().splitlines()
    assert "Provides-Extra: city" in lines
    fastapi = [line for line in lines if line.startswith("Requires-Dist: fastapi")]
    assert fastapi
    assert all("; extra == " in line for line in fastapi)
