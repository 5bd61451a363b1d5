import pytest

from fedmepd import cli
from fedmepd.config import Settings
from fedmepd.doctor.site_data import Looked, check_data
from fedmepd.site_settings import SiteSettings
from fedmepd.tasks.brats import BRATS
from tests import tiny as cohort
from tests.data import faults
from tests.data.files import SHAPE, write_case

PAPER = Settings.make("paper")


@pytest.fixture
def look(tmp_path):
    def at(data, name="site-1", settings=PAPER):
        looked = Looked(BRATS.modalities)
        machine = SiteSettings(data=data, cache=tmp_path / "cache")
        return list(check_data(name, settings, machine, looked, lambda done, total: None)), looked

    return at


def test_good_data(tiny, look):
    """In a federation's folder, where the site has a sub-folder of its own."""
    [check], looked = look(tiny.machine.data)
    assert (check.status, check.text) == ("ok", "6 cases, 6 with a label, FLAIR T1ce")
    assert (looked.modalities, looked.known) == (cohort.MODALITIES["site-1"], True)
    assert looked.voxels == ((18 * 16 * 20, 2),) * 6


def test_errors_and_warnings(look, tmp_path):
    """Kinds and counts, and where to read more; no name of a case."""
    data = tmp_path / "patients"
    faults.write_good(data)
    faults.empty_file(data)
    faults.flat(data)
    faults.whole_head(data)
    (error, warning), looked = look(data)
    assert (error.status, error.kind) == ("error", "errors in the data")
    assert error.text == "unreadable file (1), constant image (1) in 4 cases"
    assert (warning.status, warning.kind) == ("warning", "warnings about the data")
    assert "image that does not look skull-stripped (1)" in warning.text and warning.text.endswith(" in 4 cases")
    for check in (error, warning):
        assert f"fedmepd data check {data} --details" in check.advice
        assert not any(name in check.text for name in ("empty_file", "flat", "whole_head", "good"))
    assert looked.known and len(looked.voxels) == 4


def test_nothing_to_train_on(look, tmp_path):
    data = tmp_path / "patients"
    write_case(data, "a").label.unlink()
    [check], looked = look(data)
    assert (check.status, check.kind, check.text) == ("error", "no case to train on", "1 cases, 0 with a label")
    assert (looked.modalities, looked.known) == (BRATS.modalities, False)
    assert looked.voxels == ((SHAPE[0] * SHAPE[1] * SHAPE[2], 4),)


def test_a_manifest_that_trains_on_nothing(look, tmp_path, capsys, monkeypatch):
    """Labels alone do not help where the manifest says that they test."""
    monkeypatch.setenv("FEDMEPD_CACHE", str(tmp_path / "cache"))
    data = tmp_path / "patients"
    write_case(data, "a")
    assert cli.main(["data", "init", str(data)]) == 0
    file = data / "fedmepd-data.json"
    file.write_text(file.read_text().replace('"part": "train"', '"part": "test"'))
    [check], _ = look(data)
    assert (check.kind, check.text) == ("no case to train on", "1 cases, 1 with a label")


def test_a_file_that_has_changed(look, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FEDMEPD_CACHE", str(tmp_path / "cache"))
    data = tmp_path / "patients"
    case = write_case(data, "a")
    assert cli.main(["data", "init", str(data)]) == 0
    write_case(tmp_path / "other", "b").images["T2"].replace(case.images["FLAIR"])
    checks, _ = look(data)
    assert checks[0].kind == "errors in the data"
    assert "file that has changed since the manifest was written (1)" in checks[0].text


@pytest.mark.parametrize("name", ["site-1", "fusion"])
def test_no_data(look, tmp_path, name):
    for data in (None, tmp_path / "none", tmp_path):
        [check], looked = look(data, name)
        assert (check.status, check.kind) == ("error", "no data that can be used") and name in check.text
        assert str(tmp_path) not in check.text and "fedmepd data init" in check.advice
        assert ("server's kit" in check.advice) == (name == "fusion") and not looked.known


def test_phantoms(look, tmp_path):
    """They are the job's to make: nothing is written for a check."""
    [check], _ = look(None, settings=Settings.make("phantom"))
    assert (check.status, check.kind) == ("note", "no data folder, the job makes phantoms")
    assert not (tmp_path / "cache").exists()
