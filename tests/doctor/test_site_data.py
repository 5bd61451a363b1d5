import pytest

from fedmepd import cli
from fedmepd.doctor.site_data import Looked, check_data
from fedmepd.job_settings import make_settings
from fedmepd.site_settings import SiteSettings
from fedmepd.tasks.brats import BRATS
from tests import tiny as cohort
from tests.data import faults
from tests.data.files import SHAPE, write_case

PAPER = make_settings("paper")


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
    assert "images that show more than the body (1)" in warning.text and warning.text.endswith(" in 4 cases")
    for check in (error, warning):
        assert f"fedmepd data check {data} --details" in check.advice
        assert not any(name in check.text for name in ("empty_file", "flat", "whole_head", "good"))
    assert looked.known and len(looked.voxels) == 4


def test_nothing_to_train_on(look, tmp_path):
    data = tmp_path / "patients"
    write_case(data, "a").label.unlink()
    [check], looked = look(data)
    assert (check.status, check.kind, check.text) == ("error", "no case to train on", "1 case, 0 with a label")
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
    assert (check.kind, check.text) == ("no case to train on", "1 case, 1 with a label")


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


def fusion_at(site):
    return make_settings("paper", {"fusion": {"site": site}})


def test_the_fusion_site(look, tiny_apart):
    """At a hospital: its own cases and those for fusion training, and the memory of all modalities."""
    own, fusion = look(tiny_apart.machine.data, settings=fusion_at("site-1"))[0]
    assert (own.kind, own.text) == ("can be used", "6 cases, 6 with a label, FLAIR T1ce")
    # Of six: 3.6, 0.6 and 1.8 by the published shares.
    expected = "6 cases: train 3 (3 with all of FLAIR, T1ce, T1, T2), validation 1, test 2"
    assert (fusion.status, fusion.kind, fusion.text) == ("ok", "can be used for fusion training", expected)
    looked = look(tiny_apart.machine.data, settings=fusion_at("site-1"))[1]
    assert (looked.modalities, looked.networks, len(looked.voxels)) == (BRATS.modalities, 2, 12)
    # Another site, and the server, have nothing to do with it.
    [check], looked = look(tiny_apart.machine.data, settings=fusion_at("site-2"))
    assert check.text == own.text and looked.networks == 1
    [check], looked = look(None, "fusion", fusion_at("site-2"))
    assert (check.status, check.kind, check.text) == ("ok", "none needed", "site-2 is the fusion site")
    assert looked.networks == 0


def test_a_fusion_site_that_shares_patients_with_itself(look, tiny):
    check, *_ = look(tiny.machine.data, settings=fusion_at("site-1"))[0]
    assert (check.status, check.kind) == ("error", "cases both of the site and of fusion training")
    assert check.text == "patient of the site and of fusion training (6)" and "case-" not in check.text


def test_a_fusion_site_without_such_cases(look, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("FEDMEPD_CACHE", str(tmp_path / "cache"))
    data = tmp_path / "patients"
    write_case(data, "a")
    write_case(data, "b", ("T1",))
    [check], _ = look(data, settings=fusion_at("site-1"))
    assert check.text == "site-1 does not say which of its cases are for fusion training"
    assert "its option --fusion says" in check.advice
    write_case(data / "fusion", "c", ("T1", "T2"))
    checks = {check.kind: check for check in look(data, settings=fusion_at("site-1"))[0]}
    assert checks["no case for fusion training"].status == "error"
    assert "train 1 (0 with all" in checks["no case for fusion training"].text


def test_a_hospital_that_is_the_fusion_site_alone(look, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("FEDMEPD_CACHE", str(tmp_path / "cache"))
    data = tmp_path / "patients"
    write_case(data, "a")
    assert cli.main(["data", "init", str(data), "--fusion", "all"]) == 0
    [check], looked = look(data, settings=fusion_at("site-1"))
    assert (check.status, check.kind) == ("ok", "can be used for fusion training") and looked.networks == 1


def test_phantoms(look, tmp_path):
    """They are the job's to make: nothing is written for a check."""
    [check], _ = look(None, settings=make_settings("phantom"))
    assert (check.status, check.kind) == ("note", "no data folder, the job makes phantoms")
    assert not (tmp_path / "cache").exists()


def test_privacy_asks_who_the_patients_are(tiny, look):
    settings = make_settings("paper", {"privacy": {"epsilon": 8}})
    [check], _ = look(tiny.machine.data, settings=settings)
    assert (check.status, check.kind) == ("error", "patients known from names alone")
    assert "manifest" in check.text and str(tiny.machine.data) not in check.text
