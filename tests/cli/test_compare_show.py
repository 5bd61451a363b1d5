from __future__ import annotations

import json
from pathlib import Path

import pytest

from fedmepd.cli import main
from tests.comparing import runs


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, amount in (("fedmepd", 0.125), ("local", 0.0)):
        for seed in range(3):
            runs.write(tmp_path / "runs", runs.run(name, seed, runs.scores(seed) + amount))
    return tmp_path / "runs"


def test_text(folder: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["compare", "show", str(folder)]) == 0
    out = capsys.readouterr().out
    assert (
        out.startswith("Comparison of 2 methods, seeds 0, 1, 2\n")
        and "fedmepd against local: at the sites better by 0.125" in out
    )


def test_json_and_markdown(folder: Path, capsys: pytest.CaptureFixture) -> None:
    # Single files in place of their folder.
    files = [str(file) for file in folder.rglob("results.json")]
    assert main(["compare", "show", *files, "--against", "local", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["against"], found["seeds"]) == ("local", [0, 1, 2])
    assert main(["compare", "show", str(folder), "--markdown"]) == 0
    assert capsys.readouterr().out.startswith("# Comparison of 2 methods, seeds 0, 1, 2\n\n## Compared with fedmepd\n")
    with pytest.raises(SystemExit):
        main(["compare", "show", str(folder), "--markdown", "--json"])


def test_the_page(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["compare", "show", str(folder), "--out", str(tmp_path / "page")]) == 0
    assert capsys.readouterr().out.endswith(f"\nwrote {tmp_path / 'page' / 'comparison.html'}\n")


@pytest.mark.parametrize("name", ["<img src=x onerror=alert(1)>", "$\\frac{", "a|b", "²"])
def test_names_of_strangers(name: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """They are shown as they are: no markup of a page, no formula of a figure, no number."""
    for number, method in enumerate(("fedmepd", "local")):
        run = runs.run(method, 0, runs.scores(number), run_name=f"{name}-seed-0" if method == "local" else "")
        run["sites"][0]["name"] = run["hardware"]["cpu"] = name
        run["settings"]["task"] = "../somebody's"
        runs.write(tmp_path / "runs", run, runs.history([0.1, 0.2]))
    assert main(["compare", "show", str(tmp_path / "runs"), "--out", str(tmp_path / "page")]) == 0
    assert name in capsys.readouterr().out
    pages = [(tmp_path / "page" / f"comparison.{kind}").read_text() for kind in ("html", "md")]
    assert not any("<img src=x" in page for page in pages)
    assert (name in pages[0]) == ("<" not in name)
    for kind in ("png", "svg"):
        assert (tmp_path / "page" / "figures" / f"heat_map.{kind}").stat().st_size > 1000


def test_what_cannot_be_compared(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    runs.write(folder, runs.run("local", 1, runs.scores(1), cohort="others"))
    assert main(["compare", "show", str(folder)]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.startswith("fedmepd: site-1, seed 1: ") and printed.err.count("\n") == 1
