"""Every method as a job of a provisioned federation: kits with certificates, over TLS, one job after another.

What comes out is, to the bit, what the same federation gives in one process: a method needs no code for FLARE.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fedmepd import methods
from fedmepd.evaluation import results
from fedmepd.federation.in_process import run_in_process
from fedmepd.flare.watching import COMPLETED
from fedmepd.job_settings import make_settings
from fedmepd.site_settings import SiteSettings
from tests.system.production import ADMIN, SERVER, Federation, wait_for
from tests.system.simulator import ROOT, SITES, TINY

pytestmark = [pytest.mark.system, pytest.mark.slow]

PHANTOMS = [name for name in methods.names() if methods.find(name).phantoms_only]
SECONDS = 900


def set_data(federation: Federation, data: Path | None) -> None:
    """Says in all kits where the cases are; None: the sites have none, and make phantoms where a job allows it."""
    for name in (SERVER, *SITES):
        content = {"min_count": 1, "reproducible": "yes"} | ({} if data is None else {"data": str(data)})
        (federation.kit(name) / "local/fedmepd.json").write_text(json.dumps(content))


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory, cohort: Path, cache: Path) -> Iterator[Federation]:
    """A server, which has the fusion site's cases, and two sites."""
    made = Federation(tmp_path_factory.mktemp("methods"), cache)
    set_data(made, cohort)
    made.fedmepd("kit", made.kit(SERVER), "--jobs", made.jobs)
    for site in SITES:
        made.fedmepd("kit", made.kit(site))
    try:
        made.start(SERVER, *SITES)
        wait_for(lambda: made.log(SERVER).count("joined. Sent token") >= len(SITES), "all sites at the server", SECONDS)
        yield made
        made.flare("system", "shutdown", "all", "--force", by=ADMIN)
        wait_for(lambda: not made.processes(made.kits), "the end of the server and all sites")
    finally:
        made.end()


def tiny(method: str) -> dict[str, Any]:
    """The tiny settings, without the sections that the method has not."""
    foreign = {"calibration", "personalization"} - methods.find(method).settings.model_fields.keys()
    return {key: value for key, value in TINY.items() if key not in foreign} | {"method": method}


def run(federation: Federation, settings: dict[str, Any], tmp_path: Path) -> tuple[str, dict[str, Any] | None]:
    """Runs the repository's job of a method with other settings; returns FLARE's word for its end, and the results."""
    job = tmp_path / settings["method"]
    shutil.copytree(ROOT / "jobs" / f"{settings['method']}_brats", job)
    config = job / "app/config/config_fed_server.json"
    content = json.loads(config.read_text())
    content["workflows"][0]["args"]["settings"] = settings
    config.write_text(json.dumps(content))
    meta = json.loads((job / "meta.json").read_text()) | {"deploy_map": {"app": ["server", *SITES]}}
    (job / "meta.json").write_text(json.dumps(meta))
    job_id, status = federation.run_job(job, SECONDS)
    if status != COMPLETED:
        return status, None
    federation.flare("job", "download", job_id, "-o", str(tmp_path / "results"))
    return status, results.read(results.find(tmp_path / "results"))


def scores(of: dict[str, Any]) -> dict[str, Any]:
    """Everybody's test scores and last validation, and the steps and bytes that the method has cost."""
    entries = {entry["name"]: entry for entry in (*of["sites"], of["server"])}
    return {
        name: (entry["test"], entry["validation"], entry["work"]["steps"], entry["work"]["bytes_up"])
        for name, entry in entries.items()
    }


@pytest.mark.parametrize("method", [name for name in methods.names() if name not in PHANTOMS])
def test_two_rounds_over_tls(method: str, federation: Federation, cohort: Path, cache: Path, tmp_path: Path) -> None:
    settings = tiny(method)
    status, found = run(federation, settings, tmp_path)
    assert status == COMPLETED, federation.log(SERVER)[-2000:]
    machine = SiteSettings(data=cohort, cache=cache, device="cpu")
    expected = run_in_process(make_settings("phantom", settings), machine, tmp_path / "expected", SITES)
    assert (found["status"], found["method"], found["round"]) == ("finished", method, TINY["rounds"])
    assert scores(found) == scores(expected)


@pytest.mark.parametrize("method", PHANTOMS)
def test_a_method_for_phantoms_alone(method: str, federation: Federation, cohort: Path, tmp_path: Path) -> None:
    """Cases from a folder are refused, as they could be patients'; phantoms that the sites make are trained on."""
    settings = tiny(method)
    status, _ = run(federation, settings, tmp_path / "refused")
    assert status != COMPLETED
    set_data(federation, None)
    try:
        status, found = run(federation, settings | {"data": {"phantom": True}}, tmp_path / "phantoms")
    finally:
        set_data(federation, cohort)
    assert status == COMPLETED and (found["status"], found["source"]) == ("finished", "phantom")
    assert all(entry["test"] for entry in (*found["sites"], found["server"]))
