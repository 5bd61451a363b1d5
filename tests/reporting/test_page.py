from __future__ import annotations

import base64
import io
import json
import re
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_hex
from PIL import Image

from fedmepd.cli import main
from fedmepd.errors import FedMEPDError
from fedmepd.evaluation import results
from fedmepd.job_settings import make_settings
from fedmepd.reporting import figures, html, plotting
from fedmepd.reporting.cross_site_figure import cross_site, obstacles
from fedmepd.reporting.page import page, write_report
from fedmepd.tasks.find import find_task, task_names
from tests.evaluation import runs

LAYERS = {"levels.3.fuse.conv": 8, "levels.0.fuse.conv": 4, "classifier": 4}


def history(personal: dict[str, list[list[int]]] | None = None) -> dict:
    return {
        "validation": [runs.validation(1, 0.2), runs.validation(3, 0.7)],
        "rounds": [
            {"round": number, "total": 2.0 / number, "bytes_up": 1000, "bytes_down": 2000} for number in (1, 2, 3)
        ],
        "personal": personal or {},
    }


def histories() -> dict:
    named = {name: history({"classifier": [[2, 1], [3, 2]]}) for name in ("site-1", "site-2", "site-10")}
    server = history()
    server["rounds"] = [{"round": number, "total": 1.0} for number in (1, 2, 3)]
    return {"server": server} | named


def timed(run: dict) -> dict:
    phases = {phase: 1.0 for phase in figures.PHASES}
    rounds = [{"round": number, "total": float(len(phases)), **phases} for number in (0, 1, 2, 3)]
    return run | {"timing": run["timing"] | {"rounds": rounds}}


def write(folder: Path, run: dict, curves: dict | None = None) -> Path:
    results.write(folder, run, curves or histories())
    return folder


class Page(HTMLParser):
    """What a browser would find: open and closed elements, addresses, text of the cells."""

    # Elements that are never closed.
    VOID = ("meta", "img", "source")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.images: list[dict] = []
        self.addresses: list[str] = []
        self.cells: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        of = dict(attrs)
        self.addresses += [value for key, value in of.items() if key in ("src", "href", "srcset", "action")]
        if tag == "img":
            self.images.append(of)
        if tag not in self.VOID:
            self.open.append(tag)
        assert tag not in ("script", "link", "iframe")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "td":
            self.cells.append(data)


def test_the_page_holds_everything_itself(tmp_path):
    run = timed(runs.finished()) | {"filters": LAYERS}
    path = write_report(write(tmp_path, run))
    assert path == tmp_path / "report" / "report.html"
    text = path.read_text()
    seen = Page(text)
    assert all(address.startswith("data:image/png;base64,") for address in seen.addresses)
    assert "url(" not in text and "@import" not in text
    files = {file.stem: file.read_bytes() for file in (tmp_path / "report" / "figures").glob("*.png")}
    assert set(files) == {"scores", "losses", "participation", "personal_filters", "seconds", "megabytes"}
    # Of each picture there is one for narrow screens too.
    assert len(seen.addresses) == len(set(seen.addresses)) == 2 * len(files)
    shown = [base64.b64decode(image["src"].partition(",")[2]) for image in seen.images]
    assert sorted(shown) == sorted(files.values()) and all(image["alt"] for image in seen.images)
    # The table of the command line: site-10 missed round 2, its Dice is what runs.py made up.
    row = seen.cells[seen.cells.index("site-10") :]
    # Scores come first, the mean of the regions at the left.
    assert row[:5] == ["site-10", "0.500", "0.600", "0.600", "0.300"]
    assert "<small>T2</small>" in text and "site-10: took part in round 1, 3; without round 2" in text
    assert f"seed 7; fedmepd {run['version']}, python {run['versions']['python']}, torch " in text


def test_a_page_is_the_same_twice(tmp_path):
    write(tmp_path, timed(runs.finished()))
    (tmp_path / results.HISTORY).unlink()
    first = write_report(tmp_path, tmp_path / "a").read_bytes()
    assert write_report(tmp_path, tmp_path / "b").read_bytes() == first


def test_a_run_that_goes_on():
    assert "not finished" in page(runs.running(), None, {})
    assert "not finished" not in page(runs.finished(), None, {})


def test_names_cannot_break_the_page():
    run = runs.finished()
    run["run_name"] = "<script>alert(1)</script>"
    run["sites"][0]["rounds_missed"] = [{"round": 2, "reason": "a < b & </li>"}]
    text = page(run, None, {})
    Page(text)
    assert "&lt;script&gt;" in text and "a &lt; b &amp; &lt;/li&gt;" in text


def test_results_of_an_older_version(tmp_path):
    run = timed(runs.finished())
    del run["filters"]
    write(tmp_path, run)
    (tmp_path / results.HISTORY).unlink()
    text = write_report(tmp_path).read_text()
    assert "there is no history.json" in text
    assert {file.stem for file in (tmp_path / "report" / "figures").glob("*.png")} == {"participation", "seconds"}


def test_the_headline_says_what_came_out():
    """Of runs.py: mDSC 0.75 and 0.5 at two of three sites, 0.7 at the fusion site."""
    run = runs.finished() | {"source": "phantom", "date": "2026-03-04T05:06:07+00:00"}
    text = page(run, None, {})
    heading = re.search("<h1>(.*)</h1>", text)[1]
    assert heading == "FedMEPD on phantoms (cohort mild): mean Dice 0.62 at the sites, 0.70 at the fusion site"
    boxes = re.findall("<div>([^<]*)<b>([^<]*)</b><small>([^<]*)</small></div>", text)
    assert boxes == [
        ("mean of the sites", "0.62", "2 of 3 sites"),
        ("worst site", "0.50", "site-10: T2"),
        ("fusion site", "0.70", "at the server: FLAIR T1ce T1 T2"),
    ]
    assert "2026-03-04 05:06 UTC; round 3 of 3, 1 min 2 s; one run, seed 7; " in text
    assert "cases for training/validation/test: 24/4/8 at 3 sites, 24/3/12 at the fusion site" in text
    assert "The cases are PHANTOMS" in text


def test_the_headline_of_patients_and_of_a_run_that_goes_on():
    text = page(runs.running() | {"source": "folder"}, None, {})
    assert "<h1>FedMEPD on cases of data folders: round 2 of 3, validation Dice 0.60 at the sites, 0.80" in text
    assert "PHANTOMS" not in text
    run = runs.running()
    for entry in (run["server"], *run["sites"]):
        entry["validation"] = None
    run["mean"]["validation"] = {"mdsc": None, "dice": None}
    assert "<h1>FedMEPD: no scores yet</h1>" in page(run, None, {})


def test_results_say_when_they_were_written():
    before = datetime.now(UTC).replace(microsecond=0)
    assert before <= datetime.fromisoformat(runs.running()["date"]) <= datetime.now(UTC)


def test_no_picture_of_who_took_part_where_everybody_did():
    run = timed(runs.finished())
    assert figures.participation(run) is not None
    for site in run["sites"]:
        site["rounds_missed"] = []
    assert figures.participation(run) is None and "every site took part in every round" in page(run, None, {})
    run["sites"][0]["joined"] = 2
    assert figures.participation(run) is not None


def test_long_names_leave_room_for_the_figure():
    name = "university-hospital-of-a-large-town-neuroradiology"
    run = runs.finished()
    run["sites"][0]["name"] = name
    drawn = figures.participation(run, plotting.NARROW)
    [axis] = drawn.axes
    assert axis.get_yticklabels()[0].get_text() == "university-ho…adiology"
    drawn.canvas.draw()
    assert axis.get_position().width > 0.5


def test_legends_name_the_modalities():
    named = figures.names(runs.finished())
    assert named["site-1"] == "site-1: FLAIR T1ce" and named["server"] == "fusion site: FLAIR T1ce T1 T2"
    [legend] = figures.losses(histories(), named).legends
    assert {text.get_text() for text in legend.get_texts()} == set(named.values())


def test_regions_have_one_colour():
    """In the curves, in the table's head, and in the pictures of labels and contours."""
    for name in task_names():
        task = find_task(name)
        for number, colour in enumerate(task.class_colours, 1):
            of_class = {region: members for region, members in task.regions.items() if number in members}
            smallest = min(of_class, key=lambda region: len(of_class[region]))
            assert colour == task.colours[smallest]
    task = find_task("brats")
    drawn = figures.scores(histories(), {}, task).axes
    top = {axis.get_title().split()[0]: to_hex(axis.spines["top"].get_edgecolor()) for axis in drawn}
    assert top == task.colours
    head = html.table(("site", "WT", "HD95 ET mm"), [], 1, colours=task.colours)
    assert re.findall('border-color: (#[0-9a-f]+)"></span>([^<]*)<', head) == [
        (task.colours["WT"], "WT"),
        (task.colours["ET"], "HD95 ET mm"),
    ]


def test_no_two_phases_in_one_colour():
    run = timed(runs.finished())
    bars = figures.seconds(run).axes[0].containers
    assert len(bars) == len(figures.PHASES) == len({bar.patches[0].get_facecolor() for bar in bars})


def test_a_narrow_figure_has_its_axes_below_one_another():
    for layout, columns in ((plotting.WIDE, 3), (plotting.NARROW, 1)):
        figure = figures.scores(histories(), {}, find_task("brats"), layout)
        figure.canvas.draw()
        assert len({round(axis.get_position().x0, 2) for axis in figure.axes}) == columns


def matrix(scores: dict[tuple[str, str], float | str]) -> dict:
    """Three cases a cell; a text is the reason for which there is no score."""
    cells: dict[str, dict] = {}
    for (model, site), score in scores.items():
        failed = isinstance(score, str)
        cells.setdefault(model, {})[site] = {
            "modalities": ["T2"],
            "cases": 0 if failed else 3,
            "test": None if failed else runs.summary(score, 1.0),
            "reason": score if failed else None,
        }
    return cells


def test_every_model_at_every_site():
    cells = matrix(
        {
            ("server", "site-1"): 0.9,
            ("server", "site-10"): "site-10 tests no model but its own",
            ("site-1", "site-1"): 0.8,
            ("site-1", "site-10"): "no modality in common",
            ("site-10", "site-1"): "no modality in common",
            ("site-10", "site-10"): 0.7,
        }
    )
    run = runs.finished() | {"cross_site": cells}
    text = page(run, None, {"cross_site": plotting.picture(lambda layout: cross_site(run, layout))})
    assert "<li>a: site-10 tests no model but its own</li><li>b: no modality in common</li>" in text
    # Of the four test cases of site-1 three have a modality of the model.
    assert "<li>fusion site at site-1: on 3 of 4 cases, the others have no modality in common</li>" in text
    assert "Every model on every site" in text and len(Page(text).images) == 1
    assert obstacles(cells)["no modality in common"] == ("b", [("site-1", "site-10"), ("site-10", "site-1")])


def test_the_matrix_shows_its_scores():
    """A better score is a lighter cell, from the lowest to the highest; a cell without a score stays white."""

    def lightness(score: float | str) -> float:
        cells = matrix(
            {
                ("server", "server"): 0.5,
                ("server", "site-1"): score,
                ("site-1", "server"): 0.4,
                ("site-1", "site-1"): 0.6,
            }
        )
        pixels = np.asarray(Image.open(io.BytesIO(plotting.png(cross_site({"cross_site": cells})))).convert("L"))
        # The right half of the map, without its letters: the commonest value in a strip below the cell's middle.
        height, width = pixels.shape
        strip = pixels[int(height * 0.05) : int(height * 0.1), int(width * 0.55) : int(width * 0.75)]
        return float(np.median(strip))

    assert lightness(0.4) < lightness(0.5) < lightness(0.6) < lightness("no modality in common") == 255


def test_no_matrix_where_the_job_did_not_ask():
    assert cross_site(runs.finished()) is None


def test_damaged_curves_are_named(tmp_path):
    write(tmp_path, runs.finished())
    (tmp_path / results.HISTORY).write_text('{"server": ')
    with pytest.raises(FedMEPDError, match=re.escape(str(tmp_path / results.HISTORY))):
        write_report(tmp_path)
    assert not (tmp_path / "report").exists()


def test_before_the_first_round(tmp_path):
    run = runs.running() | {"round": 0}
    empty = {"validation": [], "rounds": [], "personal": {}}
    write_report(write(tmp_path, run, {name: empty for name in ("server", "site-1", "site-2", "site-10")}))
    assert not list((tmp_path / "report").glob("figures/*.png"))


def test_the_command(tmp_path, capsys):
    write(tmp_path / "results", runs.finished(), {"server": {"validation": [], "rounds": [], "personal": {}}})
    assert main(["report", str(tmp_path), "--out", str(tmp_path / "page")]) == 0
    assert capsys.readouterr().out == f"wrote {tmp_path / 'page' / 'report.html'}\n"
    assert main(["report", str(tmp_path / "nothing")]) == 2
    assert str(tmp_path / "nothing") in capsys.readouterr().err


def test_shares_of_personal_filters():
    """By hand: of 4 filters of the classifier one is personal from round 2 on, two from round 3; of 8, two from 1."""
    of = history({"classifier": [[2, 1], [3, 2]], "levels.3.fuse.conv": [[1, 2]]})
    expected = [[0.25] * 4, [0.0] * 4, [0.0, 0.25, 0.5, 0.5]]
    assert np.array_equal(figures.shares(of, LAYERS, 4), expected)


def test_the_heat_map_shows_them():
    """A site whose classifier is personal is drawn otherwise than one whose classifier is shared."""
    run = runs.finished() | {"filters": LAYERS}
    deepest = {"levels.3.fuse.conv": [[1, 8]]}
    drawn = [
        plotting.png(figures.personal_filters(run, {name: history(of) for name in ("site-1", "site-2", "site-10")}))
        for of in (deepest, deepest | {"classifier": [[1, 4]]})
    ]
    shared, personal = (np.asarray(Image.open(io.BytesIO(content)).convert("RGB")) for content in drawn)
    changed = np.argwhere((shared != personal).any(axis=2))
    assert shared.shape == personal.shape and len(changed)
    # The classifier is the last of three rows: what changes lies low in the maps, over their whole width.
    assert changed[:, 0].min() > shared.shape[0] * 0.4 and np.ptp(changed[:, 1]) > shared.shape[1] / 2


def test_no_heat_map_where_no_filter_is_personal():
    assert figures.personal_filters(runs.finished(), histories()) is None
    none = {name: history() for name in ("site-1", "site-2", "site-10")}
    assert figures.personal_filters(runs.finished() | {"filters": LAYERS}, none) is None


def test_the_heat_map_reaches_to_the_largest_share():
    """Of eight filters two are personal at one site, one at another."""
    of = {name: history({"levels.3.fuse.conv": [[1, count]]}) for name, count in (("site-1", 2), ("site-2", 1))}
    run = runs.finished() | {"filters": LAYERS}
    drawn = figures.personal_filters(run, of | {"site-10": history()})
    assert {image.get_clim() for axis in drawn.axes for image in axis.images} == {(0, 0.25)}


def test_settings_of_the_page_are_those_of_the_run():
    run = runs.finished()
    text = page(run, None, {})
    cells = Page(text.split("<details>")[1].split("</details>")[0]).cells
    shown = dict(zip(cells[::2], cells[1::2], strict=True))
    for section, of_section in run["settings"].items():
        for key, value in of_section.items() if isinstance(of_section, dict) else ():
            text_of = (value or "(none)") if isinstance(value, str) else json.dumps(value)
            assert shown[f"{section}.{key}"] == text_of
    assert shown["seed"] == "7" and shown["method"] == "fedmepd"


def test_settings_that_differ_from_the_preset_come_first():
    run = runs.finished()
    run["settings"] = make_settings("phantom", {"seed": 7, "training": {"crop": 48}}).model_dump(mode="json")
    text = page(run, None, {})
    first = Page(text.split("<h2>Settings</h2>")[1].split("<details>")[0]).cells
    assert first == ["seed", "7", "0", "training.crop", "48", "32"]
    assert "All other settings are those of the preset phantom." in text
    run["settings"] = make_settings("paper", {}).model_dump(mode="json")
    assert "All settings are those of the preset paper." in page(run, None, {})


def test_settings_of_a_method_of_another_version():
    run = runs.finished()
    run["method"] = run["settings"]["method"] = "fedfuture"
    text = page(run, None, {})
    assert "<h1>fedfuture: mean Dice" in text and "of the preset" not in text and "<td>fedfuture</td>" not in text
    assert "fedfuture" in Page(text).cells


def of_many(number: int = plotting.MANY + 1) -> tuple[dict, dict]:
    """A run of many sites, and its curves; the last site's model has no score at the first."""
    run = timed(runs.finished()) | {"filters": LAYERS}
    run["sites"] = [run["sites"][1] | {"name": f"site-{place}"} for place in range(1, number + 1)]
    run["sites"][0] |= {"rounds_missed": [{"round": 2, "reason": "out of memory"}]}
    names = [site["name"] for site in run["sites"]]
    scored, none = (
        {"cases": 4, "test": {"mdsc": 0.5}, "reason": None},
        {"cases": 0, "test": None, "reason": "no modality"},
    )
    run["cross_site"] = {model: dict.fromkeys(names, scored) for model in ("server", *names)}
    run["cross_site"][names[-1]] = run["cross_site"][names[-1]] | {names[0]: none}
    of = {name: history({"classifier": [[2, 1], [3, 2]], "levels.0.fuse.conv": [[3, 4]]}) for name in names}
    return run, {"server": history()} | of


def test_of_many_sites_nothing_has_a_name_of_its_own():
    run, of = of_many()
    named = figures.names(run)
    for drawn in (
        figures.losses(of, named),
        figures.scores(of, named, find_task("brats")),
        figures.megabytes(of, named),
    ):
        assert [text.get_text() for text in drawn.legends[0].get_texts()] == [
            f"{plotting.MANY + 1} sites",
            "fusion site: FLAIR T1ce T1 T2",
        ]
    shown = figures.participation(run)
    assert shown.axes[0].get_ylabel() == "sites, in the order of the table" and shown.get_figheight() < 10


def test_personal_filters_of_many_sites_are_one_map():
    """By hand: of 8 + 4 + 4 filters, one in round 2, then 2 of the classifier and 4 of a level."""
    run, of = of_many()
    drawn = figures.personal_filters(run, of)
    [image] = drawn.axes[0].images
    assert image.get_array().tolist() == [[0, 1 / 16, 6 / 16]] * (plotting.MANY + 1)


def test_every_model_at_every_of_many_sites():
    run, _ = of_many()
    drawn = cross_site(run)
    scores = drawn.axes[0].images[0].get_array()
    assert not drawn.axes[0].texts and scores.shape == (plotting.MANY + 2, plotting.MANY + 1)
    # The fusion site's model is in the last row, as in the table.
    assert np.argwhere(scores.mask | np.isnan(scores.data)).tolist() == [[plotting.MANY, 0]]
    text = page(run, None, {"cross_site": plotting.Picture(b"", b"")})
    assert "1 cell: no modality" in text and "White: no score." in text
