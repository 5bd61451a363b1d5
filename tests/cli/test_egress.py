"""The command ``fedmepd egress``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fedmepd.cli.program import main
from fedmepd.federation.egress import Item, read
from tests.federation.test_egress import NOW, EgressList

WEIGHT = Item("updates", "w", [10, 2], "float16", 40, 3.0, 5)
BIAS = Item("updates", "b", [10], "float16", 20, 4.0, 5)
SCORES = Item("validation_scores", "validation", bytes=30, cases=4, value={"mdsc": 0.5})


@pytest.fixture
def kit(tmp_path: Path) -> Path:
    made = EgressList(tmp_path / "kit/egress.jsonl", lambda: NOW)
    common = {"to": "hub fl.example.org:8002", "run": "r", "code": "OK"}
    made.add(**common, job="first", task="train", round_number=1, items=[WEIGHT, BIAS])
    made.add(**common, job="first", task="train", round_number=2, items=[WEIGHT, BIAS, SCORES])
    made.add(**common, job="second", task="test", round_number=None, items=[])
    return tmp_path / "kit"


def test_sums_by_kind(kit: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["egress", str(kit)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "3 messages; whole: no line was changed" in lines[0] and "fl.example.org:8002" in lines[2]
    assert read(kit / "egress.jsonl").head in lines[1]
    updates = next(line for line in lines if line.startswith("changes of shared weights"))
    # Two messages of 30 numbers and 60 bytes; 3 and 4 make 5.
    assert updates.split()[4:9] == ["2", "60", "120", "5", "5"]
    scores = next(line for line in lines if line.startswith("mean scores on validation cases"))
    assert scores.split()[5:9] == ["1", "1", "30", "4"]


def test_every_message(kit: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["egress", str(kit), "--entries", "--job", "first"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len([line for line in lines if " train " in line]) == 2 and "updates, validation_scores" in lines[-1]
    assert not [line for line in lines if " second " in line]


def test_json(kit: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["egress", str(kit), "--json"]) == 0
    [content] = json.loads(capsys.readouterr().out)
    assert content["fault"] == "" and content["entries"][1]["items"][2]["value"] == {"mdsc": 0.5}


def test_page(kit: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    page = tmp_path / "page.html"
    assert main(["egress", str(kit), "--page", str(page)]) == 0
    text = page.read_text()
    for part in ("What has left the site", "changes of shared weights", "<td>120</td>", "fl.example.org:8002"):
        assert part in text


@pytest.mark.parametrize("options", [("--json", "--entries"), ("--json", "--page", "p"), ("--entries", "--page", "p")])
def test_one_form_at_a_time(options: tuple[str, ...], kit: Path, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        main(["egress", str(kit), *options])
    assert "not allowed with argument" in capsys.readouterr().err


def test_a_changed_list(kit: Path, capsys: pytest.CaptureFixture) -> None:
    path = kit / "egress.jsonl"
    path.write_text(path.read_text().replace('"value":{"mdsc":0.5}', '"value":{"mdsc":0.9}'))
    assert main(["egress", str(kit)]) == 1
    assert "NOT WHOLE: line 2 was changed" in capsys.readouterr().out


def test_a_hash_that_was_noted(kit: Path, capsys: pytest.CaptureFixture) -> None:
    path = kit / "egress.jsonl"
    noted = read(path).head
    assert main(["egress", str(kit), "--known", noted]) == 0
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:2]))
    assert main(["egress", str(kit), "--known", noted]) == 1
    assert f"no line has the hash {noted}" in capsys.readouterr().out
    assert main(["egress", str(kit), "--known", noted, "--json"]) == 1
    printed = capsys.readouterr()
    assert json.loads(printed.out) and f"no line has the hash {noted}" in printed.err


def test_a_folder_without_a_list(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["egress", str(tmp_path / "kit")]) == 2
    assert "begins its list with the first message" in capsys.readouterr().err


def test_a_server_that_names_a_task_so_that_its_line_cannot_be_seen(kit: Path, capsys: pytest.CaptureFixture) -> None:
    """The list is read on a terminal, where such a name could erase lines, or write other ones."""
    hidden = "\x1b[2K\x1b[1A\u202etest"
    made = EgressList(kit / "egress.jsonl", lambda: NOW)
    made.add(to=hidden, job=hidden, run="r", task=hidden, round_number=1, code=hidden, items=[Item(hidden, "x")])
    for arguments in ([], ["--entries"], ["--json"], ["--page", str(kit / "egress.html")]):
        assert main(["egress", str(kit), *arguments]) == 0
        said = capsys.readouterr().out
        assert all(line.isprintable() for line in said.splitlines())
    assert all(line.isprintable() for line in (kit / "egress.html").read_text().splitlines())
