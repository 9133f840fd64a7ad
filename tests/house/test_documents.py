"""Documents say what the code does: settings, commands, kinds, links and make targets."""

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from gateway.config import CityConfig, GatewayConfig, RulesFile, fields
from sensors.formats import BUILTIN
from tests.house.reference import DOCS, SECTIONS, commands, replaced

ROOT = DOCS.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("deploy/**/*.md")])


@pytest.mark.parametrize("name", SECTIONS)
def test_a_reference_section_is_as_the_code(name: str) -> None:
    document, write = SECTIONS[name]
    text = (DOCS / document).read_text("utf-8")
    assert text == replaced(text, name, write()), f"docs/{document}: run `.venv/bin/python -m tests.house.reference`"


@pytest.mark.parametrize("model", [GatewayConfig, CityConfig, RulesFile])
def test_every_setting_explains_itself(model: type[BaseModel]) -> None:
    assert not [path for path, field in fields(model) if not field.description]


def test_the_readme_names_every_command() -> None:
    names = re.findall(r"^### `citygate (\w+)`", commands(), flags=re.MULTILINE)
    readme = (ROOT / "README.md").read_text("utf-8")
    assert names
    assert [name for name in names if f"| `citygate {name}` |" not in readme] == []
    assert set(re.findall(r"\| `citygate (\w+)` \|", readme)) <= set(names)


def test_every_command_shows_an_example() -> None:
    text = commands()
    for name in re.findall(r"^### `citygate (\w+)`", text, flags=re.MULTILINE):
        assert re.search(rf"```sh\ncitygate {name}\b", text), f"citygate {name} --help has no example"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text("utf-8")):
        if "://" in target or target.startswith("mailto:"):
            continue
        file, _, anchor = target.partition("#")
        place = (path.parent / file).resolve() if file else path
        assert place.exists(), f"{path.name}: {target}"
        if anchor and place.suffix == ".md":
            titles = re.findall(r"^#+ (.+)$", place.read_text("utf-8"), flags=re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
            assert anchor in slugs, f"{path.name}: {target}"


def test_the_readme_says_how_to_test_and_ci_does_that() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    section = readme.partition("\n## Test\n")[2]
    command = section.partition("```sh\n")[2].partition("\n```")[0]
    assert command == "make test"
    assert command in (ROOT / ".ci/run").read_text("utf-8").splitlines()


def test_documents_use_make_targets_that_exist() -> None:
    targets = set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text("utf-8"), flags=re.MULTILINE))
    for path in DOCUMENTS:
        used = set(re.findall(r"(?:`|^)make ([a-z]+)", path.read_text("utf-8"), flags=re.MULTILINE))
        assert used <= targets, path.name


def test_imports_keep_the_packages_apart() -> None:
    rules = {"sensors": r"gateway", "gateway/edge": r"gateway\.city", "gateway/city": r"gateway\.edge"}
    for folder, forbidden in rules.items():
        for path in (ROOT / folder).rglob("*.py"):
            found = re.search(rf"^\s*(?:from|import) {forbidden}\b.*", path.read_text("utf-8"), flags=re.MULTILINE)
            assert found is None, f"{path.relative_to(ROOT)}: {found and found[0]}"


def test_the_index_of_formats_names_each_of_them() -> None:
    index = (ROOT / "docs/formats/README.md").read_text("utf-8")
    assert re.findall(r"^\| \[(\w+)\]\(\1\.md\) \|", index, flags=re.MULTILINE) == sorted(BUILTIN)
