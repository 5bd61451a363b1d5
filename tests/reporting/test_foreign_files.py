"""Files of a run that come from somebody else: whatever is in them, they are shown, or refused in one sentence."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from fedmepd.errors import FedMEPDError
from fedmepd.evaluation import results, site_results
from fedmepd.evaluation.tables import console_table, markdown_table
from fedmepd.reporting import site_page
from fedmepd.reporting.page import _drawings, _history, page
from fedmepd.reporting.plotting import WIDE
from tests.evaluation import runs
from tests.reporting.test_page import LAYERS, histories, timed
from tests.reporting.test_site_page import content

WRONG = (None, True, -1, 1.5, 1e308, 10**30, "x", "", [], {}, [[]], [None], {"x": None})
GONE = object()


def a_run() -> dict[str, Any]:
    """With everything that a page can show."""
    run = timed(runs.finished()) | {"filters": dict(LAYERS), "source": "phantom"}
    site, other = run["sites"][:2]
    site["limited"] = [{"round": 1, "times_median": 12.5, "filters": 0}, {"round": 2, "filters": 3}]
    site["privacy"] = {"epsilon": 3.5, "budget": 8.0, "delta": 1e-5}
    site["ended"] = 3
    other["test_cases"] = [{"empty": {"ET": "label"}}] * 4
    tested, none = {"cases": 2, "test": runs.summary(0.5, 3.0), "reason": None}, {"cases": 0, "test": None}
    names = [entry["name"] for entry in run["sites"]]
    run["cross_site"] = {
        model: {name: deepcopy(tested) if name == model else none | {"reason": "no modality"} for name in names}
        for model in (*names, "server")
    }
    return json.loads(json.dumps(run))


def places(value: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where every value is, from the outermost on; of a long list the first entry stands for all."""
    if before:
        yield before
    inside = value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(value, list) else ()
    for key, inner in inside:
        yield from places(inner, (*before, key))


def changed(value: dict[str, Any], place: tuple[Any, ...], to: Any) -> dict[str, Any]:
    made = deepcopy(value)
    inner = made
    for key in place[:-1]:
        inner = inner[key]
    if to is GONE:
        del inner[place[-1]]
    else:
        inner[place[-1]] = to
    return made


def mutants(value: dict[str, Any], number: int, skipped: tuple[str, ...] = ()) -> Iterator[tuple[str, dict[str, Any]]]:
    """Some of the file's values, each removed or replaced by something else; the same ones in every run of the test."""
    all_of_them = [(place, to) for place in places(value) if place[0] not in skipped for to in (GONE, *WRONG)]
    for place, to in random.Random(0).sample(all_of_them, min(number, len(all_of_them))):
        yield f"{place} = {to!r}", changed(value, place, to)


def is_shown(of: dict[str, Any], file: Path, show: Callable[[Path], None], said: str) -> bool:
    """Whether the file is shown; any error but the one that the user reads fails the test."""
    file.write_text(json.dumps(of))
    try:
        show(file)
    except FedMEPDError as error:
        assert str(file) in str(error) or "unknown task" in str(error), said
        return False
    except Exception as error:
        raise AssertionError(said) from error
    return True


def draw(drawings: dict[str, Callable]) -> None:
    for drawing in drawings.values():
        drawing(WIDE)


def show_run(file: Path) -> None:
    run = results.read(file)
    console_table(run)
    markdown_table(run)
    page(run, histories(), {})


@pytest.mark.parametrize("number", [150, pytest.param(10**6, marks=pytest.mark.slow)], ids=["some", "all"])
def test_results(number: int, tmp_path: Path) -> None:
    file, settings = tmp_path / "results.json", ("settings",)
    shown = [is_shown(of, file, show_run, said) for said, of in mutants(a_run(), number, settings)]
    assert is_shown(a_run(), file, show_run, "as it was written")
    # Keys that nothing shows may hold anything, so that versions can differ.
    assert 0.02 < sum(shown) / len(shown) < 0.5


@pytest.mark.parametrize("number", [25, pytest.param(10**6, marks=pytest.mark.slow)], ids=["some", "all"])
def test_figures(number: int, tmp_path: Path) -> None:
    drawn = ("settings", "mean", "seconds", "versions")

    def show(file: Path) -> None:
        draw(_drawings(results.read(file), histories()))

    for said, of in mutants(a_run(), number, drawn):
        is_shown(of, tmp_path / "results.json", show, said)


@pytest.mark.parametrize("number", [25, pytest.param(10**6, marks=pytest.mark.slow)], ids=["some", "all"])
def test_curves(number: int, tmp_path: Path) -> None:
    for said, of in mutants(histories(), number):
        is_shown(of, tmp_path / "history.json", lambda file: draw(_drawings(a_run(), _history(file))), said)


@pytest.mark.parametrize("number", [40, pytest.param(10**6, marks=pytest.mark.slow)], ids=["some", "all"])
def test_a_sites_own_results(number: int, tmp_path: Path) -> None:
    of_site = content(
        status="finished", test=runs.summary(0.6, 4.0), selected_round=3, examples={"best": 0.9, "median": 0.5}
    )

    def show(file: Path) -> None:
        run = site_results.read(file)
        draw(site_page._drawings(run))
        site_page._page(run, {}, {kind: b"" for kind in run["examples"]})

    file = tmp_path / "site.json"
    assert is_shown(json.loads(json.dumps(of_site)), file, show, "as it was written")
    for said, of in mutants(json.loads(json.dumps(of_site)), number, ("settings",)):
        is_shown(of, file, show, said)


@pytest.mark.parametrize(
    "settings", [{}, {"task": 1}, {"data": 1}, {"data": {}}, {"method": []}, {"task": "x", "data": {"phantom": 1}}]
)
def test_settings(settings: dict, tmp_path: Path) -> None:
    is_shown(a_run() | {"settings": settings}, tmp_path / "results.json", show_run, str(settings))


def test_the_name_of_a_picture_leads_nowhere_else(tmp_path: Path) -> None:
    file = tmp_path / "site.json"
    file.write_text(json.dumps(content(examples={"../../secret": 0.5})))
    with pytest.raises(FedMEPDError, match="examples"):
        site_results.read(file)


def test_a_small_file_takes_no_memory_without_end(tmp_path: Path) -> None:
    """What is drawn grows with the product of numbers that are small each."""
    file, run = tmp_path / "results.json", a_run()
    for count, rounds in ((1000, 100_000), (1001, 3)):
        file.write_text(json.dumps(run | {"filters": {f"layer-{place}": 8 for place in range(count)}, "round": rounds}))
        with pytest.raises(FedMEPDError, match="filters"):
            results.read(file)
