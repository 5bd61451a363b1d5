"""What the documentation names is there: files, headings, commands, options, settings."""

from __future__ import annotations

import argparse
import re
import runpy
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedmepd import methods
from fedmepd.cli import build_parser
from fedmepd.site_settings import SiteSettings

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / "provisioning").glob("*.md"),
        *(ROOT / "poc").glob("*.md"),
        *(ROOT / "benchmarks").glob("*.md"),
    ]
)


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def headings(page: Path) -> set[str]:
    """The anchors that a page has: headings in small letters, without punctuation, joined by hyphens."""
    found = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{name(page)}: {target}"
        if anchor:
            assert anchor in headings(file), f"{name(page)}: {target}"


def commands(page: Path) -> Iterator[list[str]]:
    """Our own commands in a page's code, as words: blocks and inline."""
    text = page.read_text().replace("\\\n", " ")
    blocks = [line[4:] for line in text.splitlines() if line.startswith("    ")]
    inline = re.findall(r"`([^`]+)`", " ".join(line for line in text.split("\n") if not line.startswith("    ")))
    for line in [*blocks, *inline]:
        for command in re.split(r"&&|\|(?!\|)", line):
            command = re.sub(r"^(\s*[A-Z_]+=\S+)+ ", "", command).strip()
            if re.match(r"(fedmepd [a-z-]|python job\.py)", command):
                yield shlex.split(command.replace("[", " ").replace("]", " "), comments=True)


def parser_of(words: list[str]) -> tuple[argparse.ArgumentParser, list[str]]:
    """The parser of a command, and what is left of it; LookupError if there is no such command."""
    if words[0] == "python":
        return runpy.run_path(str(ROOT / "job.py"))["build_parser"](), words[2:]
    parser, words = build_parser(), words[1:]
    while words and re.match(r"[a-z]", words[0]) and parser._subparsers is not None:
        [topic] = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
        if words[0] not in topic.choices:
            raise LookupError(words[0])
        parser, words = topic.choices[words[0]], words[1:]
    return parser, words


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_and_options_exist(page: Path) -> None:
    for words in commands(page):
        try:
            parser, left = parser_of(words)
        except LookupError as error:
            pytest.fail(f"{name(page)}: {shlex.join(words)}: there is no command {error}")
        for word in left:
            option = word.partition("=")[0].rstrip(",;:")
            if option.startswith("--"):
                assert option in parser._option_string_actions, f"{name(page)}: {shlex.join(words)}: no {option}"


def test_commands_are_found() -> None:
    """The two tests above see what there is to see."""
    found = [words for page in PAGES for words in commands(page)]
    assert len(found) > 60
    with pytest.raises(LookupError, match="chekc"):
        parser_of(["fedmepd", "data", "chekc"])


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_settings_exist(page: Path) -> None:
    keys: dict[str, set[str]] = {}
    for method in map(methods.find, methods.names()):
        for section, field in method.settings.model_fields.items():
            if hasattr(field.annotation, "model_fields"):
                keys.setdefault(section, set()).update(field.annotation.model_fields)
    # A section of fedmepd.json may have the name of one of a job.
    for section, field in SiteSettings.model_fields.items():
        if section in keys and hasattr(field.annotation, "model_fields"):
            keys[section] |= field.annotation.model_fields.keys()
    for section, key in re.findall(rf"`({'|'.join(keys)})\.([a-z_]+)[`:]", page.read_text()):
        if key not in ("csv", "json", "md"):
            assert key in keys[section], f"{name(page)}: {section}.{key}"


def test_the_example_of_a_machines_settings_can_be_used(tmp_path: Path) -> None:
    [example] = re.findall(r"^    \{\n(?:     .*\n)+    \}$", (ROOT / "docs/production.md").read_text(), re.MULTILINE)
    (tmp_path / "fedmepd.json").write_text(example)
    settings = SiteSettings.load(tmp_path)
    assert (
        settings.min_count != SiteSettings().min_count and settings.limits.cache_gib != SiteSettings().limits.cache_gib
    )


def test_the_readme_is_one_screen() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 55


def test_the_index_has_every_page() -> None:
    index = (ROOT / "docs" / "README.md").read_text()
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name == "README.md" or f"]({page.name})" in index, page.name
