"""A site whose jobs run by FLARE's Slurm launcher, with a stand-in for Slurm."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from fedmepd.evaluation import results
from fedmepd.flare.watching import COMPLETED
from tests.system.production import ADMIN, SERVER, Federation, wait_for
from tests.system.simulator import ROOT, SITES, TINY

pytestmark = [pytest.mark.system, pytest.mark.slow]

TEMPLATE = ROOT / "provisioning" / "slurm" / "slurm.yml"
STAND_IN = Path(__file__).parent / "slurm" / "stand_in.py"


def slurm(folder: Path) -> Path:
    """Writes the four programs; returns their folder."""
    folder.mkdir()
    shutil.copy(STAND_IN, folder)
    for name in ("sbatch", "squeue", "sacct", "scancel"):
        script = folder / name
        script.write_text(f'#!/bin/sh\nexec {sys.executable} {folder / STAND_IN.name} {name} "$@"\n')
        script.chmod(0o755)
    return folder


@pytest.fixture
def federation(tmp_path: Path, cohort: Path, cache: Path):
    """A server and two sites, the first of which hands its jobs to Slurm."""
    made = Federation(tmp_path / "production", cache)
    for name in (SERVER, *SITES):
        data = cohort / ("fusion" if name == SERVER else name)
        (made.kit(name) / "local/fedmepd.json").write_text(json.dumps({"data": str(data), "cache": str(cache)}))
    config = yaml.safe_load(TEMPLATE.read_text())
    with socket.create_server(("127.0.0.1", 0)) as one:
        port = one.getsockname()[1]
    programs = slurm(tmp_path / "slurm")
    config["job_launcher"] |= {"python_path": sys.executable, "parent_host": "localhost", "internal_port": port}
    config["job_launcher"]["setup"] += f"export PYTHONPATH={ROOT}/custom FEDMEPD_DEVICE=cpu\n"
    (tmp_path / "slurm.yml").write_text(yaml.safe_dump(config))
    prepared = tmp_path / "production" / "prepared"
    made.nvflare(
        "deploy prepare", str(made.kit("site-1")), "--output", str(prepared), "--config", str(tmp_path / "slurm.yml")
    )
    shutil.copy(made.kit("site-1") / "local/fedmepd.json", prepared / "local")
    made.environment["PATH"] = f"{programs}:{made.environment['PATH']}"
    made.fedmepd("kit", made.kit(SERVER), "--jobs", made.jobs)
    made.fedmepd("kit", made.kit("site-2"))
    made.fedmepd("kit", prepared)
    try:
        made.start(SERVER, "site-2")
        # Unlike start.sh, it does not return as long as the client runs.
        with open(tmp_path / "start_slurm.out", "w") as out:
            subprocess.Popen(
                [prepared / "startup/start_slurm.sh"],
                env=made.environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        wait_for(lambda: made.log(SERVER).count("joined. Sent token") >= 2, "all sites at the server")
        yield made, prepared, programs / "jobs"
        made.flare("system", "shutdown", "all", "--force", by=ADMIN)
        wait_for(lambda: not made.processes(made.folder), "the end of the server and all sites")
    finally:
        made.end()


def test_a_job_at_a_site_with_slurm(federation, tmp_path: Path) -> None:
    made, prepared, jobs = federation
    job, plain = tmp_path / "job", tmp_path / "plain"
    shutil.copytree(ROOT / "jobs/fedmepd_brats", job)
    file = job / "app/config/config_fed_server.json"
    content = json.loads(file.read_text())
    content["workflows"][0]["args"]["settings"] = TINY
    file.write_text(json.dumps(content))
    meta = json.loads((job / "meta.json").read_text()) | {"deploy_map": {"app": ["server", *SITES]}}
    meta["launcher_spec"] = {"default": {"slurm": {"cpus_per_node": 2, "mem_per_node": 4000}}}
    (job / "meta.json").write_text(json.dumps(meta))
    made.fedmepd("job", "export", job, plain, "--without-code")
    job_id, status = made.run_job(plain)
    assert status == COMPLETED
    made.flare("job", "download", job_id, "-o", str(tmp_path / "results"))
    found = results.read(results.find(tmp_path / "results"))
    assert found["status"] == "finished" and [site["name"] for site in found["sites"]] == list(SITES)
    assert (prepared / job_id / "fedmepd/model_best.pt").is_file()
    # One job of Slurm's, of the site, with what the job and the template ask for.
    [folder] = jobs.iterdir()
    asked = json.loads((folder / "asked.json").read_text())
    assert {"--partition=gpu", "--time=24:00:00", "--cpus-per-task=2", "--mem=4000M", "--export=NIL"} <= set(asked)
    assert (folder / "status").read_text().strip() == "0"
