from __future__ import annotations

import base64
import copy
import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from fedmepd.comparing.comparison import compare
from fedmepd.reporting import comparison_figures
from fedmepd.reporting.comparison_page import page, write_comparison
from tests.comparing import runs
from tests.reporting.test_page import Page


def comparison(
    folder: Path, seeds: int = 3, curves: bool = True, methods: tuple[str, ...] = ("fedmepd", "local")
) -> dict:
    for place, name in enumerate(methods):
        for seed in range(seeds):
            run = runs.run(name, seed, runs.scores(seed) - 0.125 * place)
            runs.write(folder / "runs", run, runs.history([0.3, 0.5]) if curves else None)
    return compare([folder / "runs"], draws=100)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, Path]:
    """A comparison and its page. Figures take time."""
    folder = tmp_path_factory.mktemp("comparison")
    found = comparison(folder)
    return found, write_comparison(found, folder / "out")


def test_everything_is_written(written: tuple[dict, Path]) -> None:
    found, path = written
    text = path.read_text()
    seen = Page(text)
    assert path.name == "comparison.html"
    assert all(address.startswith("data:image/png;base64,") for address in seen.addresses)
    files = {file.name: file for file in (path.parent / "figures").iterdir()}
    assert set(files) == {f"{name}.{kind}" for name in ("heat_map", "differences", "curves") for kind in ("png", "svg")}
    shown = [base64.b64decode(image["src"].partition(",")[2]) for image in seen.images]
    assert sorted(shown) == sorted(file.read_bytes() for name, file in files.items() if name.endswith("png"))
    for name, file in files.items():
        if name.endswith("svg"):
            assert ElementTree.fromstring(file.read_bytes()).tag.endswith("svg")
    assert json.loads((path.parent / "comparison.json").read_text()) == found
    assert (path.parent / "comparison.md").read_text().startswith("# Comparison of 2 methods, seeds 0, 1, 2\n")
    assert "fedmepd against local: at the sites better by 0.125 [0.125, 0.125]" in text
    # Sentences in cells may take several lines; numbers may not.
    assert text.count('<table class="wraps">') == 1
    place = seen.cells.index("+0.125")
    assert seen.cells[place - 2 : place + 2] == ["local", "mean of the sites", "+0.125", "+0.125 to +0.125"]


def test_the_same_files_twice(written: tuple[dict, Path], tmp_path: Path) -> None:
    found, path = written
    again = write_comparison(found, tmp_path).parent
    files = [file for file in path.parent.rglob("*") if file.is_file()]
    assert len(files) == 9
    for file in files:
        assert file.read_bytes() == (again / file.relative_to(path.parent)).read_bytes(), file.name


def test_without_curves_rivals_and_spread(tmp_path: Path) -> None:
    found = comparison(tmp_path, seeds=1, curves=False, methods=("fedmepd",))
    text = write_comparison(found, tmp_path / "out").read_text()
    Page(text)
    assert {file.name for file in (tmp_path / "out" / "figures").iterdir()} == {"heat_map.png", "heat_map.svg"}
    assert "no curves: history.json is missing" in text


def test_names_cannot_break_the_page(written: tuple[dict, Path]) -> None:
    found = json.loads(json.dumps(written[0]).replace('"local"', '"<script>alert(1)</script>"'))
    text = page(found, {})
    Page(text)
    assert "&lt;script&gt;" in text


def test_the_figures_show_the_numbers(written: tuple[dict, Path]) -> None:
    found = copy.deepcopy(written[0])
    [axis, *_] = comparison_figures.heat_map(found).axes
    image = axis.images[0].get_array()
    expected = [
        [found["scores"][name][column]["mean"] for column in found["scores"][name]] for name in found["methods"]
    ]
    assert np.asarray(image) == pytest.approx(np.array(expected))
    assert [text.get_text() for text in axis.get_yticklabels()] == ["fedmepd", "local"]
    assert [text.get_text() for text in axis.get_xticklabels()][-1] == "fusion site"

    of = found["differences"]["local"]["columns"]["mean of the sites"]
    of |= {"mean": 0.1, "low": -0.05, "high": 0.2}
    axes = comparison_figures.differences(found).axes
    [bar] = [line for line in axes[0].containers[0].lines[2]]
    assert bar.get_segments()[0][:, 0] == pytest.approx([-0.05, 0.2])
    # All panels have one scale, so that lengths can be compared.
    assert len({axis.get_xlim() for axis in axes}) == 1

    first, second = comparison_figures.curves(found).axes
    assert first.lines[0].get_xdata() == pytest.approx([50, 90]) and first.lines[0].get_ydata() == pytest.approx(
        [0.3, 0.5]
    )
    assert second.lines[0].get_xdata() == pytest.approx([0.004, 0.008])
