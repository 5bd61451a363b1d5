from __future__ import annotations

import base64
import os
import re
from pathlib import Path

import pytest

from fedmepd.cli import main
from fedmepd.errors import FedMEPDError
from fedmepd.evaluation import site_results
from fedmepd.job_settings import make_settings
from fedmepd.reporting.site_page import write_site_report
from fedmepd.storage import write_json
from tests.evaluation import runs
from tests.reporting.test_page import LAYERS, Page, history

# The smallest PNG there is.
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def content(**changes) -> dict:
    made = site_results.build(
        "site-1",
        make_settings("phantom", {"rounds": 3, "seed": 7}),
        ("FLAIR", "T2"),
        {"train": 8, "validation": 2, "test": 4},
        LAYERS,
    )
    return made | {"round": 3, "history": history({"classifier": [[2, 1]]})} | changes


# Of a run whose page has no figures, which take time.
NO_CURVES = {"validation": [], "rounds": [], "personal": {}}


def finished(folder: Path, **changes) -> Path:
    for kind in ("best", "median", "worst"):
        (folder / "overlays").mkdir(parents=True, exist_ok=True)
        (folder / "overlays" / f"{kind}.png").write_bytes(PIXEL)
    run = content(
        status="finished",
        test=runs.summary(0.6, 4.0),
        selected_round=3,
        examples={"best": 0.9, "worst": 0.25, "median": 0.5},
        **changes,
    )
    write_json(folder / "site.json", run)
    return folder / "site.json"


def test_the_page_of_a_site(tmp_path) -> None:
    path = write_site_report(finished(tmp_path), tmp_path / "report")
    page = Page(text := path.read_text())
    assert all(address.startswith("data:image/png;base64,") for address in page.addresses)
    assert sum(address.endswith(base64.b64encode(PIXEL).decode()) for address in page.addresses) == 3
    for line in ("best test case: mDSC 0.900", "worst test case: mDSC 0.250", "median test case: mDSC 0.500"):
        assert line in text
    assert "Keep this page at the site" in text
    assert "<h1>site-1: FedMEPD, mean Dice 0.50 on its test cases</h1>" in text
    assert "FLAIR T2; round 3 of 3, finished; one run, seed 7; cases for training/validation/test: 8/2/4" in text
    # By hand: ET has half the Dice and twice the distance; the better validation is that of round 3.
    assert page.cells[:29] == [
        *("test, model of round 3", "0.500", "0.600", "0.600", "0.300", "4.0", "4.0", "8.0"),
        *("best validation, round 3", "0.700", "0.700", "0.700", "0.700", "-", "-", "-"),
        *(
            "test",
            "0.300",
            "0.300",
            "0.300",
            "40.0",
            "40.0",
            "40.0",
            "4/1/0",
            "4/1/1",
            "4/1/2",
            "0.600",
            "0.600",
            "0.300",
        ),
    ]
    names = {file.stem for file in (tmp_path / "report/figures").iterdir()}
    assert names == {"scores", "losses", "personal_filters"}


def test_a_run_that_goes_on(tmp_path) -> None:
    write_json(tmp_path / "site.json", content())
    text = write_site_report(tmp_path / "site.json", tmp_path / "report").read_text()
    assert "nothing is tested yet" in text and "Keep this page" not in text
    assert "<h1>site-1: FedMEPD, validation Dice 0.70</h1>" in text


@pytest.mark.parametrize("place", ["", "fedmepd", "job-1/fedmepd", "fedmepd_runs/trial/1234", "simulate_job/fedmepd"])
def test_the_command_finds_a_sites_folder(place, tmp_path, capsys) -> None:
    finished(tmp_path / place, history=NO_CURVES)
    assert main(["report", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"wrote {tmp_path / place / 'report' / 'report.html'}\n"


def test_of_several_runs_of_a_site_the_others_are_named(tmp_path, capsys) -> None:
    for name, age in (("job-1", 100), ("job-2", 0)):
        finished(tmp_path / name / "fedmepd", history=NO_CURVES)
        file = tmp_path / name / "fedmepd" / "site.json"
        os.utime(file, (1e9 - age, 1e9 - age))
    assert main(["report", str(tmp_path)]) == 0
    printed = capsys.readouterr()
    assert printed.out == f"wrote {tmp_path}/job-2/fedmepd/report/report.html\n"
    assert f"the newest of 2 runs: {tmp_path}/job-2/fedmepd (" in printed.err and f"{tmp_path}/job-1" in printed.err


def test_a_folder_far_above_the_runs_of_sites(tmp_path, capsys) -> None:
    """`results` shows none of them, `report` does."""
    for site in ("site-1", "site-2"):
        finished(tmp_path / "kits" / site / "job-1/fedmepd")
    places = ", ".join(f"{tmp_path}/kits/{site}/job-1/fedmepd" for site in ("site-1", "site-2"))
    assert main(["report", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"fedmepd: no run in {tmp_path}, but below it: {places}. Name one of them\n"
    assert main(["results", str(tmp_path)]) == 2 and f"no run in {tmp_path}: expected" in capsys.readouterr().err


def test_a_workspace_has_the_servers_page(tmp_path, capsys) -> None:
    from fedmepd.evaluation import results

    finished(tmp_path / "site-1/simulate_job/fedmepd")
    curves = dict.fromkeys(("server", "site-1", "site-2", "site-10"), NO_CURVES)
    results.write(tmp_path / "server/simulate_job/results", runs.finished(), curves)
    assert main(["report", str(tmp_path)]) == 0
    assert "server/simulate_job/results/report/report.html" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["{", "[]", '{"name": "site-1"}'])
def test_what_is_no_site_file_is_named(text, tmp_path) -> None:
    (tmp_path / "site.json").write_text(text)
    with pytest.raises(FedMEPDError, match=re.escape(str(tmp_path / "site.json"))):
        write_site_report(tmp_path / "site.json", tmp_path / "report")
    assert not (tmp_path / "report").exists()
