"""The map of the package names what there is: files, folders, and their order."""

import re
from pathlib import Path

import pytest
from test_package import FLOORS

ROOT = Path(__file__).parent.parent
PICTURE = (ROOT / "docs" / "architecture.svg").read_text()
MAP = (ROOT / "docs" / "architecture.md").read_text()

PATH = re.compile(r"[\w.-]+(?:/[\w.-]+)*(?:/|\.(?:py|md|svg|toml|ya?ml))|\.?\w+(?:/[\w.-]+)+")
"""A file by its ending, or a folder or a script by its slash."""


def named_in(text: str) -> list[str]:
    """The paths among what stands between backticks, outside of blocks of code."""
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    quoted = re.findall(r"`([^`\n]+)`", prose)
    return [name for name in dict.fromkeys(quoted) if PATH.fullmatch(name)]


@pytest.mark.parametrize("page", ["docs/architecture.md", "CONTRIBUTING.md"])
def test_every_file_that_a_page_names_is_there(page: str) -> None:
    names = named_in((ROOT / page).read_text())
    is_there = lambda name: (ROOT / name).exists() or (ROOT / "eqxtrain" / name).exists()
    assert names and [name for name in names if not is_there(name)] == []


def test_what_is_taken_for_a_path() -> None:
    prose = "`a/b.py` `.ci/run` `docs/api` `x.md` `run.state` `x / y` `eqxtrain/`"
    text = prose + "\n```sh\n`no.py`\n```\n"
    assert named_in(text) == ["a/b.py", ".ci/run", "docs/api", "x.md", "eqxtrain/"]


def test_the_picture_has_every_folder_in_the_order_of_imports() -> None:
    drawn = re.findall(r'<text class="name"[^>]*>([\w/.]+)</text>', PICTURE)
    folders = [name.removesuffix("/") for name in drawn if name.endswith("/")]
    assert folders == [name for name in reversed(FLOORS[""].split()) if name in FLOORS]
    modules = [name.removesuffix("/").removesuffix(".py") for name in drawn]
    assert modules == sorted(modules, key=FLOORS[""].split().index, reverse=True)


def test_the_page_shows_the_picture_and_explains_each_of_its_stops() -> None:
    assert "](architecture.svg)" in MAP
    drawn = re.findall(r'<text class="stop"[^>]*>(\d+)</text>', PICTURE)
    assert drawn == re.findall(r"^(\d+)\. ", MAP, flags=re.MULTILINE)
