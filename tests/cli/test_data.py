from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from fedmepd.cli import main
from fedmepd.data.distribution import protocol_sites
from fedmepd.data.federation_folder import look_into
from fedmepd.data.folder_reading import data_sets
from fedmepd.data.manifest import FILE_NAME, read_manifest
from fedmepd.data.preparation import PreparedCases
from fedmepd.data.same_patients import check_sites
from fedmepd.data.site import open_site_data
from fedmepd.errors import DataError
from fedmepd.job_settings import make_settings
from fedmepd.site_settings import SiteSettings
from fedmepd.tasks.brats import BRATS
from tests.data.faults import ERRORS, NOTES, WARNINGS, write_good
from tests.data.files import LPS, save, tumour, volume, write_case

ALL_FAULTS = {
    **{name: ("error", *entry) for name, entry in ERRORS.items()},
    **{name: ("warning", *entry) for name, entry in WARNINGS.items()},
    **{name: ("note", *entry) for name, entry in NOTES.items()},
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDMEPD_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def run(capsys: pytest.CaptureFixture):
    """Runs ``fedmepd data``; returns exit status and what was printed."""

    def command(*arguments: str | Path) -> tuple[int, str]:
        status = main(["data", *map(str, arguments)])
        printed = capsys.readouterr()
        return status, printed.out + printed.err

    return command


@pytest.mark.parametrize("name", ALL_FAULTS)
def test_every_fault(name: str, tmp_path: Path, run) -> None:
    """Severity, message and exit status; no name or path in output to be sent; a good case beside it is still read."""
    severity, message, make = ALL_FAULTS[name]
    data = tmp_path / "folder-of-patients"
    write_good(data)
    make(data)
    status, printed = run("check", data, "--anonymous")
    assert status == (1 if severity == "error" else 0)
    assert re.search(rf"^ +\d+  {message}$", printed, re.MULTILINE)
    titles = {"error": "errors, which keep", "warning": "\nwarnings:", "note": "\nnotes:"}
    assert titles[severity] in printed and ("no error in" in printed) == (severity != "error")
    assert name not in printed and str(tmp_path) not in printed and ".nii" not in printed and "good" not in printed
    _, detailed = run("check", data, "--details")
    assert name in detailed
    # Without an option errors and warnings are named, before the tables; notes are counted.
    _, usual = run("check", data)
    assert (name in usual) == (severity != "note")
    place, tables = usual.find(f"  {message}\n"), usual.find("cases  labelled  modalities")
    assert 0 < place and (place < tables) == (severity != "note")
    # To make a data set of it is refused, or done without the faulty case.
    status, printed = run("init", data)
    assert status == (2 if severity == "error" else 0)
    assert ("or leave out the cases with errors: --skip-faulty" in printed) == (severity == "error")
    assert (data / FILE_NAME).is_file() == (severity != "error")
    status, printed = run("init", data, "--skip-faulty")
    assert status == 0, printed
    assert "good" in [case.name for case in read_manifest(BRATS, data)[0]]


def test_anonymous_output_names_nothing_where_a_folder_is_refused(tmp_path: Path, run) -> None:
    (tmp_path / "cases.csv").write_text("case,t1\n../Miller,b.nii\n")
    status, printed = run("check", tmp_path, "--anonymous")
    assert status == 2 and "the list of the site's cases cannot be used" in printed
    assert "Miller" not in printed and str(tmp_path) not in printed
    assert "Miller" in run("check", tmp_path)[1]
    # A hospital that looks into its folder has no site's log.
    empty = tmp_path / "empty"
    empty.mkdir()
    status, printed = run("check", empty, "--anonymous")
    assert status == 2 and "without --anonymous the message says more" in printed and "log" not in printed


def test_anonymous_output_names_no_folder_of_a_federation(tmp_path: Path, run) -> None:
    """They may be patients: a hospital with fusion cases apart looks like a federation."""
    for number, place in enumerate(("Miller/preop", "Smith/preop", "fusion/c")):
        write_case(tmp_path / "data" / Path(place).parent, Path(place).name, ("T1",), T1=volume(number))
    status, printed = run("check", tmp_path / "data", "--anonymous")
    assert status == 1 and "a federation of 3 sites" in printed
    assert "Miller" not in printed and "Smith" not in printed and str(tmp_path) not in printed
    rows = [line.strip().split("  ")[0] for line in printed.splitlines()]
    assert {"folder 1", "folder 2", "fusion"} <= set(rows)
    content = json.loads(run("check", tmp_path / "data", "--anonymous", "--json")[1])
    assert [one["name"] for one in content["data_sets"]] == ["folder 1", "folder 2", "fusion"]


def test_all_faults_at_once(tmp_path: Path, run) -> None:
    for _, _, make in ALL_FAULTS.values():
        make(tmp_path / "data")
    status, printed = run("check", tmp_path / "data")
    assert status == 1 and f"{len(ERRORS)} errors: a site with this data would refuse to train" in printed
    assert "     4  unreadable file\n" in printed


def test_many_findings_of_a_kind(tmp_path: Path, run) -> None:
    for number in range(23):
        write_case(tmp_path / "data", f"c{number:02d}", ("T1",), T1=volume(0), label=None)
    _, printed = run("check", tmp_path / "data")
    assert "c19_t1.nii.gz" in printed and "c20_t1.nii.gz" not in printed
    assert "          and 3 more: --details names all\n" in printed
    assert "c22_t1.nii.gz" in run("check", tmp_path / "data", "--details")[1]


def test_what_check_prints(tmp_path: Path, run) -> None:
    for number in range(3):
        label = None if number == 2 else tumour_of(number)
        write_case(tmp_path / "data", f"case-{number}", ("T1", "FLAIR"), label=label)
    write_case(tmp_path / "data", "case-3", ("T1ce",), label=tumour_of(2))
    status, printed = run("check", tmp_path / "data")
    assert status == 0
    assert printed.splitlines() == [
        "found a folder per case: 4 cases of 4 patients",
        "",
        "cases  labelled  modalities",
        "    3         2  FLAIR T1",
        "    1         1  T1ce",
        "",
        "cases  shape in voxels",
        "    4  8 x 9 x 10",
        "",
        "cases  voxel in mm",
        "    4  1 x 1 x 1",
        "",
        "cases  axes",
        "    4  LPS",
        "",
        "cases  label values  read as",
        "    3       0 1 2 4  BraTS until 2021: 0, 1 NCR/NET, 2 ED, 4 ET",
        "",
        *printed.splitlines()[18:24],
        "notes:",
        "     1  case without a label, for inference only",
        "",
        "no error in 4 cases",
    ]
    # 720 voxels a label; 8, 9 and 9 of them tumour.
    assert printed.splitlines()[18:20] == ["cases  voxels  median  class", "    3    2134     711  background"]
    assert printed.splitlines()[22] == "    3       3       1  ET"


def tumour_of(number: int) -> np.ndarray:
    return tumour(kind=number)


def dicom(folder: Path) -> None:
    (folder / "patient" / "series").mkdir(parents=True)
    (folder / "patient" / "series" / "IM0001.DCM").touch()


@pytest.mark.parametrize(
    ("prepare", "expected"),
    [
        pytest.param(lambda folder: None, "{folder} cannot be read", id="no folder"),
        pytest.param(lambda folder: folder.mkdir(), "no case in {folder}", id="no case"),
        pytest.param(
            lambda folder: (folder / "a").mkdir(parents=True), "cases.csv. {folder}/a: it is empty", id="empty"
        ),
        pytest.param(lambda folder: dicom(folder), "DICOM: convert them with dcm2niix", id="DICOM"),
        pytest.param(lambda folder: (folder.mkdir(), (folder / FILE_NAME).write_text("{")), "JSON", id="bad manifest"),
    ],
)
@pytest.mark.parametrize("command", ["check", "init"])
def test_folders_that_cannot_be_looked_at(command: str, prepare, expected: str, tmp_path: Path, run) -> None:
    prepare(tmp_path / "data")
    status, printed = run(command, tmp_path / "data")
    assert status == 2
    if not (command == "init" and expected == "JSON"):
        assert expected.format(folder=tmp_path / "data") in printed


def test_labels_are_said_once(tmp_path: Path, run) -> None:
    """A plain folder with 0, 1, 2, 3; later runs know it from the manifest."""
    data = tmp_path / "data"
    write_case(data, "a", label=three(7))
    assert run("check", data)[0] == 1
    status, printed = run("init", data)
    assert status == 2 and "say --labels brats2023" in printed
    assert run("init", data, "--labels", "msd")[0] == 0
    assert read_manifest(BRATS, data)[0][0].convention == "msd"
    assert run("init", data)[0] == 0 and run("check", data)[0] == 0
    # A newcomer is read as the others, and not in silence; one whose values do not fit is refused.
    write_case(data, "b", label=three(9))
    status, printed = run("init", data)
    assert status == 0 and "labels of new cases, read as those of the earlier ones" in printed
    assert {case.convention for case in read_manifest(BRATS, data)[0]} == {"msd"}
    assert "earlier ones" not in run("init", data)[1]
    write_case(data, "c", label=tumour(kind=11))
    status, printed = run("init", data)
    assert status == 2 and "holds the label values 4, unknown as Decathlon" in printed


def three(kind: int) -> np.ndarray:
    made = tumour(kind=kind)
    made[made == 4] = 3
    return made


def test_init_again_after_cases_and_modalities_have_come(tmp_path: Path, run) -> None:
    data, kit = tmp_path / "data", tmp_path / "kit"
    (kit / "local").mkdir(parents=True)
    (kit / "local" / "fedmepd.json").write_text('{"device": "cpu"}')
    for number in range(10):
        write_case(data, f"p{number}", ("T1",))
    status, printed = run("init", data, "--kit", kit)
    assert status == 0 and "written: train 6, validation 1, test 3, without a label (inference only) 0" in printed
    assert json.loads((kit / "local" / "fedmepd.json").read_text()) == {"device": "cpu", "data": str(data)}
    before = (data / FILE_NAME).stat().st_mtime_ns
    status, printed = run("init", data)
    assert status == 0 and "is up to date" in printed and (data / FILE_NAME).stat().st_mtime_ns == before
    parts = read_manifest(BRATS, data)[1]
    write_case(data, "p3", ("T1", "T2"))
    for number in range(10, 20):
        write_case(data, f"p{number}", ("T1",))
    status, printed = run("init", data)
    assert "written: train 12, validation 2, test 6" in printed
    cases, later = read_manifest(BRATS, data)
    assert {name: later[name] for name in parts} == parts
    assert {case.name: case.modalities for case in cases}["p3"] == ("T1", "T2")


def test_init_of_fusion_cases_points_a_kit_to_the_folder_that_holds_them(tmp_path: Path, run) -> None:
    """The hospital's own cases lie beside them: the kit that points to these has to go on doing so."""
    data, kit = tmp_path / "data", tmp_path / "kit"
    (kit / "local").mkdir(parents=True)
    for number in range(3):
        write_case(data, f"own{number}", ("T1",))
        write_case(data / "fusion", f"f{number}", BRATS.modalities)
    assert run("init", data, "--kit", kit)[0] == 0
    status, printed = run("init", data / "fusion", "--kit", kit)
    assert status == 0 and f"fedmepd.json points to {data}\n" in printed
    assert json.loads((kit / "local" / "fedmepd.json").read_text()) == {"data": str(data)}
    assert f"FEDMEPD_DATA={data}," in run("init", data / "fusion")[1]


@pytest.mark.parametrize("content", ["{", "[]"])
def test_init_with_a_kit_whose_settings_are_broken_divides_nothing(content: str, tmp_path: Path, run) -> None:
    data, file = tmp_path / "data", tmp_path / "kit" / "local" / "fedmepd.json"
    file.parent.mkdir(parents=True)
    file.write_text(content)
    write_case(data, "a", ("T1",))
    status, printed = run("init", data, "--kit", tmp_path / "kit")
    assert status == 2 and f"{file} " in printed and not (data / FILE_NAME).exists()


def test_init_elsewhere(tmp_path: Path, run) -> None:
    """Links to a folder that may be read-only; what has gone from there goes from here too."""
    data, out = tmp_path / "data", tmp_path / "out"
    for name in "ab":
        write_case(data, name, ("T1", "T2"))
    assert run("init", data, "--out", out)[0] == 0
    link = out / "a" / "a_t1.nii.gz"
    assert link.is_symlink() and link.resolve() == data / "a" / "a_t1.nii.gz"
    assert run("check", out)[0] == 0 and not (data / FILE_NAME).exists()
    shutil.rmtree(data / "a")
    assert run("check", out)[0] == 1
    assert run("init", data, "--out", out)[0] == 0
    assert not (out / "a").exists() and [case.name for case in read_manifest(BRATS, out)[0]] == ["b"]
    assert run("init", data, "--out", out, "--copy")[0] == 0
    assert not (out / "b" / "b_t1.nii.gz").is_symlink()
    assert (out / "b" / "b_t1.nii.gz").read_bytes() == (data / "b" / "b_t1.nii.gz").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--kit", "nowhere"), "nowhere is no FLARE kit"),
        (("--copy",), "--copy: expected --out"),
        (("--train", "0.8", "--validation", "0.3"), "expected shares above 0, at most 1 together"),
        (("--train", "0"), "expected shares above 0"),
        (("--validation", "0.1"), "--validation 0.1 of 1 labelled case gives no validation case: raise the share"),
    ],
)
def test_init_refuses(arguments: tuple[str, ...], expected: str, tmp_path: Path, run) -> None:
    write_good(tmp_path / "data")
    status, printed = run("init", tmp_path / "data", *arguments)
    assert status == 2 and expected in printed
    assert not (tmp_path / "data" / FILE_NAME).exists()


def test_init_of_unlabelled_cases_alone_is_refused(tmp_path: Path, run) -> None:
    write_case(tmp_path / "data", "a", label=None)
    status, printed = run("init", tmp_path / "data")
    assert status == 2 and "no case to train on: a site needs at least one case with a label" in printed
    assert not (tmp_path / "data" / FILE_NAME).exists()


def test_init_says_what_check_says(tmp_path: Path, run) -> None:
    """Warnings with names, notes as counts, the site's modalities, and which part has no case."""
    data = tmp_path / "data"
    write_case(data, "a", ("T1", "FLAIR"), affine=LPS * [1, 1, 9, 1])
    write_case(data, "b", ("T1",), label=tumour_of(3))
    save(data / "b" / "adc.nii.gz", volume(1))
    status, printed = run("init", data)
    assert status == 0
    assert "     3  unusual voxel size\n" in printed and "a_t1.nii.gz has voxels of 1 x 1 x 9 mm" in printed
    assert "     1  file of another name, passed over\n" in printed and "adc" not in printed
    assert "modalities of the site: FLAIR T1\n" in printed
    assert (
        "no validation case: the last model is taken, and not the best one" in printed and "no test case" not in printed
    )


def test_init_for_fusion_training(tmp_path: Path, run) -> None:
    """A half of ten patients, then of twenty: who was dealt stays, and a test case never trains."""
    data = tmp_path / "data"
    for number in range(10):
        write_case(data, f"p{number}")
    write_case(data, "few", ("T1",))
    assert run("init", data)[0] == 0
    parts = read_manifest(BRATS, data)[1]
    status, printed = run("init", data, "--fusion", "0.5")
    assert status == 0 and "for fusion training: train " in printed
    cases, later = read_manifest(BRATS, data)
    chosen = {case.name for case in cases if case.for_fusion}
    assert len(chosen) == 5 and "few" not in chosen and later == parts
    for number in range(10, 20):
        write_case(data, f"p{number}")
    # Newcomers are the site's own unless somebody says otherwise.
    assert run("init", data)[0] == 0
    assert {case.name for case in read_manifest(BRATS, data)[0] if case.for_fusion} == chosen
    for number in range(20, 30):
        write_case(data, f"p{number}")
    status, printed = run("init", data, "--fusion", "0.5")
    cases, later = read_manifest(BRATS, data)
    more = {case.name for case in cases if case.for_fusion}
    # Of 30 patients 15; the five of before, and ten newcomers: those that the run before gave to the site stay there.
    assert chosen < more and more - chosen == {f"p{number}" for number in range(20, 30)}
    assert {name: later[name] for name in parts} == parts
    (tmp_path / "few.txt").write_text("few\n")
    status, printed = run("init", data, "--fusion", tmp_path / "few.txt")
    assert status == 2 and "patient few has no FLAIR, T1ce, T2 in case few" in printed
    status, printed = run("init", data, "--fusion", "2")
    assert status == 2 and "--fusion 2: expected a share above 0 and at most 1" in printed
    assert {case.name for case in read_manifest(BRATS, data)[0] if case.for_fusion} == more


def test_patients_for_fusion_training_who_lose_a_modality(tmp_path: Path, run) -> None:
    data = tmp_path / "data"
    for name in "ab":
        write_case(data, name)
    assert run("init", data, "--fusion", "all")[0] == 0
    next(data.glob("a/*_t2.nii.gz")).unlink()
    status, printed = run("init", data)
    assert status == 2 and "patient a has no T2 in case a: add them, or take the patient out" in printed
    assert run("init", data, "--fusion", "all")[0] == 0
    assert [case.for_fusion for case in read_manifest(BRATS, data)[0]] == [False, True]


def test_check_counts_cases_for_fusion_training(tmp_path: Path, run) -> None:
    """Of a hospital's folder, and of a federation's; what nobody marked is the site's own."""
    data = tmp_path / "data"
    for number in range(6):
        write_case(data / "site-1", f"p{number}")
    (tmp_path / "three.txt").write_text("p0\np1\np2\n")
    status, printed = run("init", data / "site-1", "--fusion", tmp_path / "three.txt")
    assert "data.json written: train 1, validation 1, test 1, without" in printed
    assert "\nfor fusion training: train 1, validation 1, test 1, without" in printed
    _, printed = run("check", data / "site-1")
    rows = [line.split(maxsplit=2) for line in printed.splitlines()]
    for part in ("train", "validation", "test"):
        assert ["1", part, "the site"] in rows and ["1", part, "fusion training"] in rows
    write_case(data / "site-2", "q", ("T1",))
    run("init", data / "site-2")
    status, printed = run("check", data)
    assert status == 0 and "found a federation of 2 sites" in printed
    rows = [" ".join(line.split()) for line in printed.splitlines()]
    assert "site-1 3 1 1 1 0 0 FLAIR T1ce T1 T2" in rows and "site-1, for fusion 3 1 1 1 0 0 FLAIR T1ce T1 T2" in rows
    assert "site-2 1 1 0 0 0 0 T1" in rows


def test_a_hospital_with_a_folder_for_fusion_training(tmp_path: Path, run) -> None:
    """Each is a data set of its own; a case in both is an error."""
    data = tmp_path / "data"
    for name in "abc":
        write_case(data, name, ("T1",))
        write_case(data / "fusion", f"full-{name}")
    status, printed = run("init", data)
    assert status == 0 and "found a folder per case: 3 cases" in printed
    todo = f"the cases in {data / 'fusion'} are for fusion training: make a data set of that folder too"
    assert todo in printed
    assert run("init", data / "fusion")[0] == 0
    status, printed = run("init", data)
    assert status == 0 and "are for fusion training" in printed and todo not in printed
    (data / "fusion" / FILE_NAME).unlink()
    status, printed = run("init", data, "--fusion", "all")
    assert status == 2 and "leave one out" in printed
    status, printed = run("check", data)
    assert status == 0 and "found the cases of a hospital and those for fusion training" in printed
    rows = [" ".join(line.split()) for line in printed.splitlines()]
    assert "its own 3 1 1 1 0 0 T1" in rows and "fusion 3 - - - 0 0 FLAIR T1ce T1 T2" in rows
    assert "-: without a manifest, data.train, data.validation and the seed of the job decide" in printed
    shutil.copytree(data / "a", data / "fusion" / "a")
    status, printed = run("check", data)
    assert status == 1 and "its own and fusion share 2 volumes of the same content and 1 patient" in printed


SITES = """
sites:
  - {name: fusion, modalities: [FLAIR, T1ce, T1, T2], cases: 5}
  - {name: north, modalities: [T2], share: 0.25}
  - {name: south, modalities: [T1ce, FLAIR], share: 0.25}
"""


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    """Twelve cases of BraTS 2018's layout, of two institutions."""
    for number in range(12):
        group, place = ("HGG", "CBICA") if number % 2 else ("LGG", "TCIA09")
        name = f"Brats18_{place}_A{number}_1"
        write_case(tmp_path / "brats" / group, name, label=tumour_of(number))
    (tmp_path / "sites.yaml").write_text(SITES)
    return tmp_path / "brats"


@pytest.mark.parametrize("copy", [False, True])
def test_split(copy: bool, cohort: Path, tmp_path: Path, run) -> None:
    out = tmp_path / "sites"
    arguments = ("split", cohort, out, "--sites", tmp_path / "sites.yaml", *(["--copy"] if copy else []))
    status, printed = run(*arguments)
    assert status == 0, printed
    assert printed.splitlines()[0] == "found BraTS 2018: 12 cases of 12 patients"
    assert f"{out} written" in printed and "left over: 1 case" in printed
    found = {site: read_manifest(BRATS, out / site)[0] for site in ("fusion", "north", "south")}
    assert {site: len(cases) for site, cases in found.items()} == {"fusion": 5, "north": 3, "south": 3}
    assert {case.modalities for case in found["south"]} == {("FLAIR", "T1ce")}
    files = [path for path in out.rglob("*.nii.gz")]
    # Five files a case at the fusion site, two at north's, three at south's, and no more.
    assert len(files) == 25 + 6 + 9 and all(path.is_symlink() != copy for path in files)
    status, printed = run("check", out)
    assert status == 0 and "found a federation of 3 sites" in printed
    assert "the sites are disjoint" in printed and "Brats18" not in printed
    # The same again changes nothing; another seed is another split.
    times = {path: path.lstat().st_mtime_ns for path in out.rglob("*")}
    status, printed = run(*arguments)
    assert status == 0 and "is up to date" in printed
    assert {path: path.lstat().st_mtime_ns for path in out.rglob("*")} == times
    status, printed = run(*arguments, "--seed", "1")
    assert status == 2 and "is no such split" in printed
    assert {path: path.lstat().st_mtime_ns for path in out.rglob("*")} == times
    # The same data and seed elsewhere: the same sites.
    run("split", cohort, tmp_path / "again", "--sites", tmp_path / "sites.yaml")
    for site in found:
        assert (tmp_path / "again" / site / FILE_NAME).read_text() == (out / site / FILE_NAME).read_text()


def test_check_refuses_patterns_for_several_sites(cohort: Path, tmp_path: Path, run) -> None:
    assert run("split", cohort, tmp_path / "sites", "--sites", tmp_path / "sites.yaml")[0] == 0
    status, printed = run("check", tmp_path / "sites", "--pattern", "label=*_seg.nii.gz")
    alone = f"`fedmepd data check {tmp_path / 'sites' / 'north'} --pattern 'label=*_seg.nii.gz'`"
    assert status == 2 and f"--pattern: {tmp_path / 'sites'} holds 3 data sets: check one alone, {alone}" in printed
    status, printed = run("check", tmp_path / "sites", "--labels", "msd", "--follow-links")
    assert status == 2 and f"check {tmp_path / 'sites' / 'north'} --labels msd --follow-links`; a run has no" in printed
    # A name that nobody knows is told first.
    assert (
        "no label values 'brat'; did you mean brats? Expected brats (BraTS until"
        in run("check", tmp_path / "sites", "--labels", "brat", "--follow-links")[1]
    )


def test_check_tells_sites_that_share_cases(cohort: Path, tmp_path: Path, run) -> None:
    """North's patient under another name at south's: of other modalities, but with the same label."""
    out = tmp_path / "sites"
    run("split", cohort, out, "--sites", tmp_path / "sites.yaml", "--copy")
    case = read_manifest(BRATS, out / "north")[0][0]
    source = next(path for path in cohort.rglob("*") if path.is_dir() and path.name == case.name)
    for word in ("flair", "t1ce", "seg"):
        target = out / "south" / "renamed" / f"renamed_{word}.nii.gz"
        target.parent.mkdir(exist_ok=True)
        shutil.copy(source / f"{case.name}_{word}.nii.gz", target)
    assert run("init", out / "south")[0] == 0
    status, printed = run("check", out)
    assert status == 1 and "north and south share 1 volume of the same content" in printed
    assert "     1  two sites that share cases\n" in printed


def test_check_names_cases_that_came_after_the_manifest(tmp_path: Path, run, monkeypatch) -> None:
    """Whatever layout they have; those for fusion training are no such cases, and a name of the folder is as good."""
    data = tmp_path / "data"
    for name in "ab":
        write_case(data, name, ("T1",))
    write_case(data / "fusion", "f")
    assert run("init", data)[0] == 0 and "manifest does not have" not in run("check", data, "--details")[1]
    write_case(data, "new", ("T1",))
    status, printed = run("check", data, "--details")
    assert status == 0 and "     1  case that the manifest does not have\n" in printed
    assert f"case new in {data} is not in its manifest, and is not used: `fedmepd data init` takes it in" in printed
    monkeypatch.chdir(data)
    assert "     1  case that the manifest does not have\n" in run("check", ".", "--details")[1]
    assert run("init", data)[0] == 0 and "manifest does not have" not in run("check", data, "--details")[1]


def sites_of(folder: Path) -> Path:
    """Three sites without manifests, whose patients are numbered."""
    for number, site in enumerate(("north", "south", "fusion")):
        write_case(folder / site, "001", ("T1",), T1=volume(300 + number), label=tumour_of(number))
    return folder


def test_check_of_sites_without_manifests(tmp_path: Path, run) -> None:
    """Hospitals number their patients alike; what is no site is told with the reason."""
    data = sites_of(tmp_path / "data")
    write_case(data / "north", "002", ("T2",), label=None)
    status, printed = run("check", data)
    assert status == 0 and "found a federation of 3 sites" in printed
    rows = [" ".join(line.split()) for line in printed.splitlines()]
    assert "north 2 - - - 1 0 T1 T2" in rows and "south 1 - - - 0 0 T1" in rows
    assert "north and south have 1 patient in common by name, and no volume: the names are numbers" in printed
    (data / "west").symlink_to(tmp_path / "gone")
    status, printed = run("check", data)
    assert status == 0 and f"west is no site: a link to {tmp_path}/gone, which is not there" in printed
    write_case(data / "south" / "fusion", "x")
    assert main(["data", "init", str(data / "south")]) == 0
    status, printed = run("check", data)
    assert status == 1 and "north is no site: it has no manifest, which south has" in printed
    assert "     1  images beside the sites of a federation\n" in printed


def test_check_of_a_hospital_whose_patients_have_several_examinations(tmp_path: Path) -> None:
    """Beside a folder of cases for fusion training: the patients are no sites, since a date is no patient's name."""
    data = tmp_path / "data"
    places = ("Li/2019-03", "Li/2020-04", "Ray/2019-03", "fusion/Orr/2018-01", "fusion/Poe/2018-01")
    for number, place in enumerate(places):
        write_case(data / place, "x", T1=volume(300 + number), label=tumour_of(number))
        for file in (data / place / "x").iterdir():
            file.rename(data / place / file.name)
        (data / place / "x").rmdir()
    sets, beside = data_sets(BRATS, data, lambda what: None, follow_links=False)
    assert {name: [case.patient for case in found.cases] for name, found in sets.items()} == {
        "its own": ["Li", "Li", "Ray"],
        "fusion": ["Orr", "Poe"],
    }
    assert not beside
    (data / "Ray" / "2019-03").rename(data / "Ray" / "Orr")
    (data / "Li" / "2019-03").rename(data / "Li" / "Poe")
    (data / "Li" / "2020-04").rename(data / "Li" / "Orr")
    assert [*data_sets(BRATS, data, lambda what: None, follow_links=False)[0]] == ["Li", "Ray", "fusion"]


def test_a_pattern_of_an_earlier_time_that_fits_no_file(tmp_path: Path, run) -> None:
    """The user has not said it today: the message says where it stands. Without it the files' names count."""
    image = write_case(tmp_path / "data", "a", ("T1",)).images["T1"]
    old = image.rename(image.with_name("a_mprage.nii.gz"))
    assert run("init", tmp_path / "data", "--pattern", "T1=*_mprage.nii.gz")[0] == 0
    old.rename(image)
    status, printed = run("init", tmp_path / "data")
    manifest = tmp_path / "data" / "fedmepd-data.json"
    assert status == 2 and f"an earlier `fedmepd data init` noted it in {manifest}; say --pattern with what" in printed
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "patterns": []}))
    assert run("init", tmp_path / "data")[0] == 0


@pytest.mark.parametrize("site", ["west", "east"])
@pytest.mark.parametrize("how", ["folder", "hard", "symbolic"])
def test_check_of_sites_that_are_linked(how: str, site: str, tmp_path: Path, run) -> None:
    """They are told to be the same, first, and no advice follows that would not help, wherever the link stands."""
    data = sites_of(tmp_path / "data")
    (data / site).symlink_to(data / "north") if how == "folder" else (data / site / "p").mkdir(parents=True)
    for file in [] if how == "folder" else (data / "north" / "001").iterdir():
        link = data / site / "p" / file.name
        os.link(file, link) if how == "hard" else link.symlink_to(file)
    pair = " and ".join(sorted(("north", site)))
    status, printed = run("check", data)
    assert status == 1 and "     1  two sites that share cases\n" in printed and "rename" not in printed
    what = (
        " and .*".join(sorted(("north", site))) + " are the same folder" if how == "folder" else f"{pair} have 2 files"
    )
    assert re.search(what, printed) and "follow-links" not in printed and "no image" not in printed
    unread = "north" if how == "hard" and site == "east" else site
    assert f"{unread}: not read, since {pair} have the same" in printed
    rows = [" ".join(line.split()) for line in printed.splitlines()]
    assert f"{unread} not read" in rows and f"{'east' if unread == 'north' else 'north'} 1 - - - 0 0 T1" in rows
    status, printed = run("check", data, "--anonymous")
    assert status == 1 and str(tmp_path) not in printed
    assert re.search("folder [1-4] and folder [1-4] have the same", printed)
    assert not any(name in printed for name in ("north", "east", site))
    status, printed = run("check", data, "--json")
    content = json.loads(printed)
    assert status == 1 and [one["name"] for one in content["data_sets"] if not one["read"]] == [unread]
    assert content["overlaps"] == [f"{pair} have the same {'data folder' if how == 'folder' else 'files'}"]


def test_check_of_a_link_that_leads_out_of_a_federation(tmp_path: Path, run) -> None:
    """The image is there, and so is the label; one advice for the check, for a run and before it."""
    data = tmp_path / "data"
    for number, site in enumerate(("north", "south", "fusion")):
        write_case(data / site, f"of-{site}", ("T1",), T1=volume(300 + number), label=tumour_of(number))
    for file in list((data / "north" / "of-north").iterdir()):
        file.rename(tmp_path / file.name)
        file.symlink_to(tmp_path / file.name)
    status, printed = run("check", data, "--details")
    assert status == 1 and "     2  file outside the case's folder\n" in printed
    assert "no image" not in printed and "no label" not in printed
    assert "the sites are disjoint: no two share a volume's content or a patient's name, as far as their" in printed
    advice = "a run has no option --follow-links: give it to `fedmepd data init` with the site's folder"
    assert f"\n{advice}" in printed
    with pytest.raises(DataError, match=f"\n  {advice}"):
        check_sites(BRATS, data, ["north", "south"])
    with pytest.raises(DataError, match=advice):
        open_site_data("north", make_settings("paper", {}), SiteSettings(data=data, cache=tmp_path / "cache"))
    status, printed = run("check", data / "north", "--follow-links")
    assert status == 0 and f"\n{advice}" in printed
    assert run("init", data / "north", "--follow-links")[0] == run("init", data / "south")[0] == 0
    status, printed = run("check", data)
    assert status == 0 and "follow-links" not in printed


@pytest.mark.parametrize(
    "stray", ["case-99/case-99_t1.nii.gz", "t1.nii.gz", "north/t1.nii.gz", "north+south/t1.nii.gz"]
)
def test_check_of_images_beside_sites(stray: str, tmp_path: Path, run) -> None:
    """Whether a hospital's or a federation's folder, nobody can know: the image is named, as before a run."""
    data = sites_of(tmp_path / "data")
    for number, folder in enumerate(Path(stray).parent.name.split("+")):
        save(data / folder / Path(stray).name, volume(500 + number))
    status, printed = run("check", data)
    hospital = f"; or, if all are one hospital's, `fedmepd data init {data}` makes a data set of them\n"
    assert status == 2 and Path(stray).name in printed and printed.endswith(hospital)
    with pytest.raises(DataError) as refused:
        look_into(BRATS, data).require_sites(fusion=True)
    for_a_run = str(refused.value)
    same = for_a_run.partition(": expected a folder" if "+" in stray else ". Move them")[0]
    assert f"fedmepd: {same}. Move them into the folder of a site, or out of this folder" in printed
    assert str(tmp_path) not in run("check", data, "--anonymous")[1]


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        # By site or by patient: nothing tells.
        (("north/a", "north/b", "south/c"), "may be the sites of a federation, or the patients of one"),
        (("north/first/NIfTI", "south/second/NIfTI"), "may be the sites of a federation, or the patients of one"),
        (
            ("north/P1_20190301", "north/P1_20200512", "south/P2"),
            "may be the sites of a federation, or the patients of",
        ),
        (
            ("north/a", "north/b", "south/c", "Fusion/d"),
            "Fusion: its name is fusion but for upper and lower case: call",
        ),
        (("Li", "Ray", "Fusion/d"), "Fusion: its name is fusion but for upper and lower case: call"),
        # A date, a session, or a case beside them does.
        (("Li/2019-03", "Li/2020-03", "Ray/2019-04"), "3 cases of 2 patients"),
        (("Li/week-044", "Li/week-056", "Ray/week-004"), "3 cases of 2 patients"),
        (("Li/a", "Li/b", "Ray"), "3 cases of 2 patients"),
        (("Li/2019-03", "Ray/2019-04", "fusion/a"), "its own: found a folder per patient, in it one per examination"),
        (("Li/week-044", "Ray/week-056", "fusion/a"), "its own: found a folder per patient, in it one per examination"),
        (("Li/2019-03", "Ray", "fusion/a"), "(1), a folder per case (1): 2 cases of 2 patients"),
        # A date at one of them says nothing of the others: it is told as the fault of its site, or nothing tells.
        (("north/P1", "north/P2", "south/2019-03", "fusion/a"), "2019-03, which should be the patient of"),
        (("north/P1", "north/P2", "south/2019-03"), "may be the sites of a federation, or the patients of one"),
        # A hospital with cases for fusion training.
        (("north/a", "north/fusion/b", "south/c"), "found a federation of 2 sites"),
        # A patient whose name is that of the folder.
        (("Li", "Ray", "Fusion"), "3 cases of 3 patients"),
        (("week-044", "week-056"), "which should be the patient of"),
    ],
)
def test_check_of_folders_in_folders(places: tuple[str, ...], expected: str, tmp_path: Path, run) -> None:
    data = tmp_path / "data"
    for number, place in enumerate(places):
        save(data / place / "t1.nii.gz", volume(300 + number))
        save(data / place / "seg.nii.gz", tumour_of(number))
    status, printed = run("check", data)
    assert expected in printed
    assert status == (2 if "call" in expected or "may be" in expected else "should be" in expected)
    if "may be" in expected:
        assert "If they are sites, give the folder with the cases for fusion training the name fusion" in printed
        assert f"`fedmepd data init {data}/north`. If they are patients, say so with --one-site, or make a" in printed
        _, printed = run("check", data, "--anonymous")
        assert "it is not clear whether these are sites or patients" in printed and "north" not in printed
        status, printed = run("check", data, "--one-site")
        assert "3 cases of 2 patients" in printed or places[0] != "north/a"
        # A manifest of one of them tells that all are sites.
        if run("init", data / "north")[0] == 2:
            assert "P1_" in places[0]
            return
        assert "south is no site: it has no manifest, which north has" in run("check", data)[1]
        status, printed = run("check", data, "--one-site")
        assert status == 2 and f"--one-site: {data}/north has a manifest of its own" in printed
        split = ("split", data, tmp_path / "out", "--protocol", "brats2020")
        for command in (("init", data), split):
            status, printed = run(*command)
            assert status == 2 and f"data holds 1 site of a federation: name one, such as {data}/north" in printed
        (data / "fusion").mkdir()
        status, printed = run(*split)
        assert (
            status == 2 and "data has a sub-folder for fusion training, as the folder of a federation or of" in printed
        )


def test_a_hospital_whose_folders_nothing_tells_from_sites(tmp_path: Path, run) -> None:
    """Its user says that all of it is one hospital's; its fusion cases are apart, and patients keep their names."""
    for number, place in enumerate(("P1/preop", "P1/T0", "P2/preop", "fusion/P8/preop", "fusion/P9/preop")):
        save(tmp_path / "data" / place / "t1.nii.gz", volume(300 + number))
        save(tmp_path / "data" / place / "seg.nii.gz", tumour_of(number))
    asked = "found a federation of 3 sites; if the folders are the patients of one hospital, say so with --one-site"
    assert asked in run("check", tmp_path / "data")[1]
    status, printed = run("check", tmp_path / "data", "--one-site")
    assert status == 0 and "found the cases of a hospital and those for fusion training" in printed
    assert "3 cases of 2 patients" in printed and "2 cases of 2 patients" in printed


@pytest.mark.parametrize("out", ["made", "."])
def test_a_data_set_is_not_made_among_the_cases_it_is_made_of(out: str, tmp_path: Path, run) -> None:
    """It would be refused the next time; without its manifest, patients would come into other parts then."""
    for name in ("Li", "Ray", "Sam"):
        write_case(tmp_path / "data", name)
    status, printed = run("init", tmp_path / "data", "--out", tmp_path / "data" / out)
    assert status == 2 and "choose a folder outside the data set" in printed
    assert not list((tmp_path / "data").rglob(FILE_NAME))


def test_a_single_folder_is_no_site(tmp_path: Path, run) -> None:
    """As an unpacked download has it: what is asked is what its own sub-folders are."""
    for number, place in enumerate(("P1/preop", "P1/postop", "P2/preop")):
        save(tmp_path / "data" / "download" / place / "t1.nii.gz", volume(300 + number))
    status, printed = run("check", tmp_path / "data")
    assert status == 2 and f"the sub-folders of {tmp_path}/data/download, such as P1, may be the sites" in printed
    assert f"`fedmepd data init {tmp_path}/data/download`" in printed
    # A group's name says that its sub-folders are patients.
    (tmp_path / "data" / "download").rename(tmp_path / "data" / "patients")
    status, printed = run("check", tmp_path / "data")
    assert status == 0 and "3 cases of 2 patients" in printed


def test_names_of_sites_that_may_be_groups_of_cases(tmp_path: Path, run) -> None:
    """Manifests tell that they are sites: before a run and in a check. Without them it is asked."""
    data = tmp_path / "data"
    names = ("HGG", "data", "images", "train", "fusion")
    for number, site in enumerate(names):
        write_case(data / site, f"P{number}", ("T1",), T1=volume(300 + number), label=tumour_of(number))
    answer = "if it is a site, rename it, or make a data set of every site with `fedmepd data init`"
    strays = look_into(BRATS, data).strays
    assert set(strays) == set(names[:-1]) and all(why.endswith(answer) for why in strays.values())
    for site in names[:-1]:
        run("init", data / site)
    status, printed = run("check", data)
    assert status == 0 and "found a federation of 5 sites" in printed
    assert set(look_into(BRATS, data).sites) == set(names[:-1])


def test_an_atlas_in_the_folder_for_fusion_training(tmp_path: Path, run) -> None:
    """It is none of a case's images, in a federation's folder and in a hospital's; another image is asked about."""
    for data in (sites_of(tmp_path / "federation"), tmp_path / "hospital"):
        for number, name in enumerate(("001", "002")):
            write_case(data / "fusion", f"f{name}", ("T1",), T1=volume(400 + number), label=tumour_of(number + 7))
        save(data / "fusion" / "atlas.nii.gz", volume(7))
    write_case(tmp_path / "hospital", "own")
    status, printed = run("check", tmp_path / "federation")
    assert status == 0 and "found a federation of 3 sites" in printed
    assert "fusion/atlas.nii.gz: put the images of each case into a folder of its own" in printed
    status, printed = run("check", tmp_path / "hospital")
    assert status == 0 and "found the cases of a hospital and those for fusion training" in printed
    assert run("init", tmp_path / "hospital")[0] == 0
    save(tmp_path / "federation" / "fusion" / "t1.nii.gz", volume(8))
    status, printed = run("check", tmp_path / "federation")
    assert status == 2 and "fusion holds images, such as t1.nii.gz, and folders of cases, such as 001" in printed


def test_check_of_names_at_two_sites(tmp_path: Path, run) -> None:
    """A name tells little, but that of a public data set tells the patient."""
    data = sites_of(tmp_path / "data")
    for number, site in enumerate(("north", "south")):
        write_case(data / site, "Li", ("T1",), T1=volume(400 + number), label=tumour_of(20 + number))
    status, printed = run("check", data)
    assert status == 0 and "     1  patients of the same name at two sites\n" in printed
    for number, site in enumerate(("north", "south")):
        images = {"T1": volume(500 + number), "label": tumour_of(30 + number)}
        write_case(data / site, f"Brats18_CBICA_AAB_{number}", ("T1",), **images)
    status, printed = run("check", data)
    assert status == 1 and "north and south share 1 patient by name: every case belongs to one" in printed


def test_examinations_of_one_patient_stay_together(tmp_path: Path, run) -> None:
    """In patient/date they do; in patient/visit/NIfTI it is asked who the patient is, and a list tells."""
    rows, number = ["case,patient,t1,seg"], 0
    for patient in ("PatA", "PatB"):
        for date in ("2021-01-02", "2021-07-01", "2022-03-03"):
            label = tumour_of(number := number + 1)
            for folder in (tmp_path / "flat" / patient, tmp_path / "deep" / patient / f"visit{number}"):
                name = "NIfTI" if "deep" in folder.parts else date
                case = write_case(folder, name, ("T1",), T1=volume(300 + number), label=label)
            files = [path.relative_to(tmp_path / "deep") for path in case.files]
            rows.append(f"{patient}-{date},{patient},{files[0]},{files[1]}")
    assert run("init", tmp_path / "flat", "--train", "0.5")[0] == 0
    entries = json.loads((tmp_path / "flat" / FILE_NAME).read_text())["cases"]
    assert {(entry["patient"], entry["part"]) for entry in entries} in (
        {("PatA", "train"), ("PatB", "test")},
        {("PatB", "train"), ("PatA", "test")},
    )
    status, printed = run("check", tmp_path / "deep")
    assert status == 2 and "may be the sites of a federation, or the patients of one hospital" in printed
    status, printed = run("init", tmp_path / "deep")
    assert status == 2 and "write a list cases.csv with a column patient" in printed
    assert not (tmp_path / "deep" / FILE_NAME).exists()
    (tmp_path / "deep" / "cases.csv").write_text("\n".join(rows) + "\n")
    assert run("init", tmp_path / "deep", "--train", "0.5")[0] == 0
    entries = json.loads((tmp_path / "deep" / FILE_NAME).read_text())["cases"]
    assert len({(entry["patient"], entry["part"]) for entry in entries}) == 2


def test_the_decathlons_layout(tmp_path: Path, run) -> None:
    """Its four volumes in one file and its own label values, from the download to a site's crops."""
    root = tmp_path / "Task01_BrainTumour"
    for number in range(3):
        volumes = [volume(100 * (place + 1) + number) for place in range(4)]
        save(root / "imagesTr" / f"BRATS_{number:03d}.nii.gz", np.stack(volumes, axis=-1))
        save(root / "labelsTr" / f"BRATS_{number:03d}.nii.gz", three(number))
    status, printed = run("check", root)
    assert status == 0 and "found Decathlon (MSD) Task01: 3 cases of 3 patients" in printed
    assert "Decathlon: 0, 1 ED, 2 NCR/NET, 3 ET" in printed
    (tmp_path / "sites.yaml").write_text("sites: [{name: north, modalities: [T1, T1ce], cases: 2}]")
    assert run("split", root, tmp_path / "out", "--sites", tmp_path / "sites.yaml")[0] == 0
    assert len(list((tmp_path / "out").rglob("*.nii.gz"))) == 4
    data = open_site_data("north", make_settings("paper"), SiteSettings(data=tmp_path / "out", cache=tmp_path / "c"))
    assert data.modalities == ("T1ce", "T1") and data.counts() == {"train": 1, "validation": 0, "test": 1}
    item = PreparedCases(data.train, data.cache)[0]
    # Channels 2 and 1 of the file: 300 and 200, and a voxel of twice as much; the z-score of both is the same.
    assert item["image"].shape[0] == 2 and torch.equal(item["image"][0], item["image"][1])
    # The one voxel of 1 in the file is ED.
    assert item["label"].max() == 3 and (item["label"] == 2).sum() == 1


def test_split_by_published_lists(tmp_path: Path, run) -> None:
    lists = tmp_path / "lists"
    lists.mkdir()
    for number, name in enumerate(("server", *(f"c{place}" for place in range(1, 9)))):
        write_case(tmp_path / "data", f"BraTS20_Training_{number:03d}", label=tumour_of(number))
        (lists / f"{name}.csv").write_text(f"BraTS20_Training_{number:03d}\n")
    status, printed = run("split", tmp_path / "data", tmp_path / "out", "--split-dir", lists)
    assert status == 0, printed
    for number, (site, modalities) in enumerate(sorted(protocol_sites(BRATS).items())):
        [case] = read_manifest(BRATS, tmp_path / "out" / site)[0]
        assert case.name == f"BraTS20_Training_{number:03d}" and case.modalities == modalities


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("{out}", "--protocol", "brats2018"), "found 12 labelled cases, expected at least 284"),
        (("{cohort}/out", "--protocol", "brats2018"), "choose a folder outside the data set"),
        (("{out}", "--sites", "{cohort}/none.yaml"), "none.yaml does not exist: expected a YAML file with `sites`"),
        (("{out}", "--sites", "{cohort}"), "/brats cannot be read (Is a directory): expected a YAML file with `sites`"),
        (
            ("{out}", "--partition", "{cohort}/none.csv"),
            "none.csv does not exist: expected a partition with the columns",
        ),
        (("{out}", "--protocol", "brats2018", "--labels", "own.yaml"), "own.yaml does not exist: expected a YAML file"),
        (("{out}", "--split-dir", "{cohort}"), "server.csv does not exist: expected the lists server.csv, c1.csv"),
    ],
)
def test_split_refuses(arguments: tuple[str, ...], expected: str, cohort: Path, tmp_path: Path, run) -> None:
    out = tmp_path / "out"
    status, printed = run("split", cohort, *(part.format(out=out, cohort=cohort) for part in arguments))
    assert status == 2 and expected in printed
    assert not out.exists() and not list(tmp_path.glob(".out*"))


def test_a_full_disk_leaves_nothing(cohort: Path, tmp_path: Path, run, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    out = tmp_path / "sites"
    status, printed = run("split", cohort, out, "--sites", tmp_path / "sites.yaml", "--copy")
    assert status == 2 and "No space left on device" in printed
    assert not out.exists() and not list(tmp_path.glob(".sites*"))


def test_a_split_says_how_to_train_on_it(cohort: Path, tmp_path: Path, run) -> None:
    out = tmp_path / "sites"
    _, printed = run("split", cohort, out, "--sites", tmp_path / "sites.yaml")
    assert f"to train on it: python job.py --data {out}\n" in printed
    assert "nvflare simulator jobs_own/fedmepd_brats -w workspace/flare -c north,south -t 2" in printed
    (tmp_path / "sites.yaml").write_text("sites: [{name: north, modalities: [T1], cases: 4}]")
    _, printed = run("split", cohort, tmp_path / "one", "--sites", tmp_path / "sites.yaml")
    assert f"python job.py --data {tmp_path / 'one'} --fusion-site NAME\n" in printed


def test_the_folder_of_one_case(tmp_path: Path, run, monkeypatch: pytest.MonkeyPatch) -> None:
    case = write_case(tmp_path / "data", "p-7")
    monkeypatch.chdir(tmp_path / "data")
    for folder in (case.label.parent, "p-7"):
        status, printed = run("check", folder)
        assert status == 0 and "found the folder of one case: 1 case of 1 patient" in printed
    status, printed = run("check", case.label)
    assert status == 2 and f"{case.label.parent} is its case: name that, or the folder of all cases" in printed
    for name in ("p-8_t1", "p-8_flair"):
        save(case.label.with_name(f"{name}.nii.gz"), volume(7))
    status, printed = run("check", case.label.parent)
    assert status == 2 and "holds the files of several cases, such as p-7_flair.nii.gz" in printed


def test_names_that_are_not_utf_8(tmp_path: Path, run) -> None:
    """One such name is an error of its own, and the other cases go on."""
    write_case(tmp_path / "data", "good")
    bad = write_case(tmp_path / "data", "bad").label.parent
    os.rename(bad, os.fsencode(bad.parent) + b"/M\xfc")
    status, printed = run("check", tmp_path / "data")
    assert status == 1 and "     1  name that is not UTF-8\n" in printed and "M\\udcfc has a name" in printed
    assert run("init", tmp_path / "data")[0] == 2
    assert run("init", tmp_path / "data", "--skip-faulty")[0] == 0
    assert [case.name for case in read_manifest(BRATS, tmp_path / "data")[0]] == ["good"]


def test_names_with_control_characters(tmp_path: Path, run) -> None:
    """They would forge lines of a log; such a case cannot be in a manifest."""
    write_case(tmp_path / "data", "good")
    write_case(tmp_path / "data", "bad\x1b[2J\nfine")
    status, printed = run("check", tmp_path / "data")
    assert status == 1 and "     1  name with control characters\n" in printed
    assert "\n".join(printed.splitlines()).count(r"bad\x1b[2J\nfine has control characters in its name: rename it") == 1
    assert run("init", tmp_path / "data")[0] == 2
    assert run("init", tmp_path / "data", "--skip-faulty")[0] == 0
    assert [case.name for case in read_manifest(BRATS, tmp_path / "data")[0]] == ["good"]


def test_a_partition_of_fets(tmp_path: Path, run) -> None:
    """Whose each case is; a site has the modalities that all its cases have."""
    for number in range(6):
        modalities = ("FLAIR", "T1", "T2") if number else ("FLAIR", "T1")
        write_case(tmp_path / "fets", f"FeTS2022_0000{number}", modalities, label=tumour_of(number))
    rows = ["Partition_ID,Subject_ID", *(f"{1 + number // 4 * 9},FeTS2022_0000{number}" for number in range(5))]
    (tmp_path / "partitioning_1.csv").write_text("\n".join(rows) + "\n")
    out = tmp_path / "sites"
    status, printed = run("split", tmp_path / "fets", out, "--partition", tmp_path / "partitioning_1.csv")
    assert status == 0 and "left over: 1 case" in printed
    assert {site.name: len(read_manifest(BRATS, site)[0]) for site in out.iterdir() if site.is_dir()} == {
        "site-1": 4,
        "site-10": 1,
    }
    assert read_manifest(BRATS, out / "site-1")[0][1].modalities == ("FLAIR", "T1")
    assert read_manifest(BRATS, out / "site-10")[0][0].modalities == ("FLAIR", "T1", "T2")
    assert f"python job.py --data {out} --fusion-site NAME\n" in printed
    for text, expected in {
        "Partition_ID,Subject_ID\n1,unknown\n": "no labelled case for 1 of its 1 subject, such as unknown",
        "site,case\n1,2\n": "expected the columns Partition_ID and Subject_ID",
        "Partition_ID,Subject_ID\n1,FeTS2022_00000\n2,FeTS2022_00000\n": "is at site-1 and at site-2",
        "Partition_ID,Subject_ID\na b,FeTS2022_00000\n": "'a b' can be no name of a site",
        "Partition_ID,Subject_ID\n1,FeTS2022_00000\n1\n": "row 2 has no Subject_ID",
    }.items():
        (tmp_path / "bad.csv").write_text(text)
        status, printed = run("split", tmp_path / "fets", tmp_path / "other", "--partition", tmp_path / "bad.csv")
        assert status == 2 and expected in printed and not (tmp_path / "other").exists()
