from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from benchmarks import round as module


@pytest.fixture
def job(tmp_path):
    """The default job with other settings and two sites, in a folder of its own."""
    changes = {"method": "local", "training": {"crop": 16}}
    copied = module.copy_job(module.JOB, tmp_path / "first", changes)
    meta = copied / "meta.json"
    meta.write_text(json.dumps({"deploy_map": {"a": ["server", "site-2"], "b": ["server", "site-1"]}}))
    return copied


def settings(job) -> dict:
    config = json.loads((job / "app/config/config_fed_server.json").read_text())
    return config["workflows"][0]["args"]["settings"]


def test_copy_of_a_job_differs_in_the_settings_that_were_named(job, tmp_path) -> None:
    before = settings(job)
    copied = module.copy_job(job, tmp_path / "second", {"rounds": 3, "training": {"batch": 1}})
    assert settings(copied) == {"method": "local", "rounds": 3, "training": {"crop": 16, "batch": 1}}
    assert settings(job) == before
    for path in ("meta.json", "app/config/config_fed_client.json", "app/custom/README.md"):
        assert (copied / path).read_bytes() == (job / path).read_bytes()


def test_sites_of_a_job(job) -> None:
    assert module.sites_of(job) == ["site-1", "site-2"]


def test_rows_by_hand() -> None:
    timing = {
        "mean_round": {"site_training": 5.0, "waiting": 1.0},
        "rounds": [
            {"round": 0, "start_up": 50.0, "site_training": 0.0, "waiting": 0.0, "total": 50.0},
            {"round": 1, "start_up": 0.0, "site_training": 4.0, "waiting": 2.0, "total": 6.0},
            {"round": 2, "start_up": 0.0, "site_training": 6.0, "waiting": 0.0, "total": 6.0},
            {"round": 3, "start_up": 9.0, "site_training": 5.0, "waiting": 1.0, "total": 15.0},
        ],
    }
    training, waiting, total = module.rows(timing)
    assert training == {"phase": "site_training", "median": 5, "lowest": 4, "highest": 6, "share": 15 / 18}
    assert waiting == {"phase": "waiting", "median": 1, "lowest": 0, "highest": 2, "share": 3 / 18}
    # Without the start-up of a resumed run.
    assert total == {"phase": "total", "median": 6, "lowest": 6, "highest": 6, "share": 1}


def test_memory_of_a_process_and_its_descendants() -> None:
    """A process that holds 64 MiB starts another one that does: twice as much, and two more than this one."""
    hold = "block = b'x' * (64 << 20); print('there', flush=True); sys.stdin.read()"
    child = (
        f"import subprocess, sys; inner = subprocess.Popen([sys.executable, '-c', 'import sys; ' + {hold!r}]); {hold}"
    )
    alone = module.MemoryWatch(os.getpid())
    alone.sample()
    with subprocess.Popen(
        [sys.executable, "-c", child], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert [process.stdout.readline() for _ in range(2)] == ["there\n"] * 2
        together = module.MemoryWatch(os.getpid())
        together.sample()
        process.stdin.close()
    assert together.processes == alone.processes + 2
    assert 100 < together.peak_mib - alone.peak_mib < 250
