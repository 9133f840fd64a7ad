"""The example as a site has it: a project outside this repository, in an environment with nothing but the wheel."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OFFLINE = re.compile("name resolution|Name or service not known|Network is unreachable|new connection|timed out")


@pytest.mark.slow
def test_a_site_tests_its_gateway_with_nothing_but_the_wheel(wheel: Path, tmp_path: Path) -> None:
    project, venv = tmp_path / "site", tmp_path / "venv"
    shutil.copytree(ROOT / "tests/testing/example", project, ignore=shutil.ignore_patterns("__pycache__"))
    clean = {name: text for name, text in os.environ.items() if not name.startswith(("PYTHON", "PYTEST_", "CITYGATE_"))}

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, cwd=project, env=clean, capture_output=True, text=True, check=False)

    assert run(sys.executable, "-m", "venv", str(venv)).returncode == 0
    python = str(venv / "bin/python")
    # The versions that are tested everywhere else, from wherever pip has them.
    constraints = tmp_path / "constraints.txt"
    pins = re.findall(r"(?m)^[\w.-]+==[^\\\n]+", (ROOT / "requirements/dev.txt").read_text("utf-8"))
    constraints.write_text("\n".join(pins), "ascii")
    pip = (python, "-m", "pip", "--disable-pip-version-check", "--quiet", "install", "--retries", "1")
    done = run(*pip, "--constraint", str(constraints), f"{wheel}[test]")
    if done.returncode and OFFLINE.search(done.stderr) and os.environ.get("CI") != "true":
        pytest.skip("no package registry can be reached")
    assert done.returncode == 0, done.stderr
    done = run(python, "-m", "pytest", "-p", "no:cacheprovider")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"plugins: .*citygate-", done.stdout)
    assert re.search(r"\n=+ 5 passed", done.stdout)
