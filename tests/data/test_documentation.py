"""docs/data.md says what every message means."""

import re
from pathlib import Path

from tests.data.faults import ERRORS, NOTES, WARNINGS

ROOT = Path(__file__).parents[2]


def documented():
    """The first column of the tables of messages."""
    text = (ROOT / "docs" / "data.md").read_text().partition("## Messages")[2]
    return set(re.findall(r"^\| (.+?) \|", text, re.MULTILINE)) - {"error", "warning", "note"}


def said():
    """Kinds of findings as they stand in the code: literals, and constants that hold them."""
    kinds = set()
    for file in (ROOT / "custom" / "fedmepd").rglob("*.py"):
        code = file.read_text()
        constants = dict(re.findall(r'^(\w+) = "(.+)"$', code, re.MULTILINE))
        for literal, name in re.findall(r'(?<![\w.])(?:error|warning|note)\(\s*(?:"([^"]+)"|([A-Z_0-9]+)\b)', code):
            kinds.add(literal or constants[name])
        for literal, name in re.findall(r'(?:VolumeError\(|Finding\("\w+", )(?:"([^"]+)"|([A-Z_0-9]+)\b)', code):
            kinds.add(literal or constants[name])
    return kinds


def test_every_message_is_explained():
    assert said() == documented()


def test_the_faulty_folder_has_most_of_them():
    made = {message for table in (ERRORS, WARNINGS, NOTES) for message, _ in table.values()}
    assert made <= documented() and len(made) >= 26
