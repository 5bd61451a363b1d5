"""The folder `jobs` is what the command writes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from fedmepd import methods
from fedmepd.flare.export import CUSTOM_README
from fedmepd.flare.jobs import RENEW, main, write_jobs
from fedmepd.job_settings import make_settings

JOBS = Path(__file__).parents[2] / "jobs"


def files(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_the_jobs_are_up_to_date(tmp_path: Path) -> None:
    assert write_jobs(tmp_path) == [tmp_path / f"{method}_brats" for method in methods.names()]
    written, ours = files(tmp_path), files(JOBS)
    assert sorted(written) == sorted(ours), f"run `{RENEW}`, and remove jobs of methods that are no more"
    stale = [name for name, text in written.items() if ours[name] != text]
    assert not stale, f"{', '.join(stale)} out of date: run `{RENEW}`"


def test_a_job_written_out_by_hand() -> None:
    meta = json.loads((JOBS / "local_brats/meta.json").read_text())
    sites = ["site-1", "site-2", "site-3", "site-4", "site-5", "site-6", "site-7", "site-8"]
    assert meta == {
        "name": "local_brats",
        "resource_spec": {},
        "min_clients": 1,
        "deploy_map": {"app": ["server", *sites]},
    }
    client = json.loads((JOBS / "local_brats/app/config/config_fed_client.json").read_text())
    assert client["executors"] == [
        {
            "tasks": ["prepare", "train", "test", "give_model", "test_model", "fusion"],
            "executor": {"path": "fedmepd.flare.executor.FedMEPDExecutor", "args": {}},
        }
    ]
    assert [each["tasks"] for each in client["task_data_filters"]] == [["train", "test", "test_model", "fusion"]]
    assert [each["tasks"] for each in client["task_result_filters"]] == [["train", "give_model", "fusion"]]


@pytest.mark.parametrize("method", methods.names())
def test_jobs_differ_by_method_alone(method: str) -> None:
    content = json.loads((JOBS / f"{method}_brats/app/config/config_fed_server.json").read_text())
    arguments = content["workflows"][0]["args"]
    settings = make_settings(arguments["preset"], arguments["settings"])
    assert settings == make_settings("phantom", {"method": method})
    assert (JOBS / f"{method}_brats/app/custom/README.md").read_text() == CUSTOM_README
    assert not (JOBS / f"{method}_brats/app/custom/fedmepd").exists()


def test_the_command_renews_stale_files_and_leaves_others(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    jobs = tmp_path / "jobs"
    shutil.copytree(JOBS, jobs)
    (jobs / "fedavg_brats/meta.json").write_text("{}")
    (jobs / "trial").mkdir()
    (jobs / "trial/meta.json").write_text("mine")
    assert main([str(jobs)]) == 0
    assert capsys.readouterr().out.splitlines() == [f"wrote {jobs / f'{name}_brats'}" for name in methods.names()]
    assert files(jobs) == files(JOBS) | {"trial/meta.json": "mine"}


def test_a_folder_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "jobs").write_text("a file")
    assert main([str(tmp_path / "jobs")]) == 2
    assert "fedmepd.flare.jobs: cannot write" in capsys.readouterr().err
