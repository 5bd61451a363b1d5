import json
import subprocess
import sys
from pathlib import Path

import pytest

from fedmepd.doctor.federation import job_settings
from fedmepd.errors import FedMEPDError, SettingsError
from fedmepd.flare.export import export_job, fusion_site_of

JOB = Path(__file__).parents[2] / "jobs/fedmepd_brats"


def test_exported_job_carries_a_package_that_works(tmp_path):
    out = export_job(JOB, tmp_path / "out")
    custom = out / "app/custom"
    assert (out / "meta.json").read_text() == (JOB / "meta.json").read_text()
    assert not list(custom.rglob("__pycache__"))
    code = "import sys; sys.path.insert(0, sys.argv[1]); import fedmepd.flare.controller as c; print(c.__file__)"
    found = subprocess.run([sys.executable, "-c", code, str(custom)], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == str(custom / "fedmepd/flare/controller.py")


def test_a_job_without_code_for_every_site(tmp_path):
    out = export_job(JOB, tmp_path / "out", with_code=False, all_sites=True)
    before = {path.relative_to(JOB) for path in JOB.rglob("*") if "custom" not in path.parts}
    assert {path.relative_to(out) for path in out.rglob("*")} == before
    meta, original = (json.loads((job / "meta.json").read_text()) for job in (out, JOB))
    assert meta.pop("deploy_map") == {"app": ["@ALL"]}
    original.pop("deploy_map")
    assert meta == original


def test_a_job_with_its_fusion_site_at_a_hospital(tmp_path):
    out = export_job(JOB, tmp_path / "out", with_code=False, all_sites=True, fusion_site="north")
    assert fusion_site_of(JOB) == "" and fusion_site_of(out) == "north"
    # Nothing else in the job's settings changes.
    before, after = (job_settings(job).model_dump() for job in (JOB, out))
    assert after.pop("fusion") == {"site": "north"}
    before.pop("fusion")
    assert before == after


def test_a_fusion_site_that_the_job_is_not_deployed_to(tmp_path):
    with pytest.raises(FedMEPDError, match="north cannot be the fusion site: the job is for server, site-1"):
        export_job(JOB, tmp_path / "out", fusion_site="north")
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_no_site_can_have(tmp_path):
    with pytest.raises(SettingsError, match="site = '../x'"):
        export_job(JOB, tmp_path / "out", all_sites=True, fusion_site="../x")
    assert list(tmp_path.iterdir()) == []


def test_folder_that_is_no_job(tmp_path):
    with pytest.raises(FedMEPDError, match="is no job"):
        export_job(tmp_path, tmp_path / "out")


def test_what_is_there_stays(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/precious").write_text("x")
    with pytest.raises(FedMEPDError, match="exists already"):
        export_job(JOB, tmp_path / "out")
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "precious"]
