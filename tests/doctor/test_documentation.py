"""docs/doctor.md says what every line means."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def documented():
    """Topic, status and what was found, of the tables' rows."""
    text = (ROOT / "docs" / "doctor.md").read_text()
    return set(re.findall(r"^\| (\w+) \| (ok|note|warning|error) \| (.+?) \|", text, re.MULTILINE))


def said():
    """The same, as it stands in the code."""
    found = set()
    for file in (ROOT / "custom" / "fedmepd" / "doctor").glob("*.py"):
        code = file.read_text()
        topics = {}
        for names, values in re.findall(r"^(_[A-Z_, ]+) = (Topic\(.+)$", code, re.MULTILINE):
            topics |= dict(zip(names.split(", "), re.findall(r'Topic\("(\w+)"\)', values), strict=True))
        for topic, status, kind in re.findall(r'(_[A-Z]+)\.(ok|note|warning|error)\(\s*"([^"]+)"', code):
            found.add((topics[topic], status, kind))
        assert len(re.findall(r"_[A-Z]+\.(?:ok|note|warning|error)\(", code)) == len(
            re.findall(r'_[A-Z]+\.(?:ok|note|warning|error)\(\s*"', code)
        ), f"{file}: a message that is no literal"
    return found


def test_every_line_is_explained():
    assert said() == documented() and len(said()) > 40
