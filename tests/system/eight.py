"""A POC federation of eight sites whose processes, network and disks a test can break."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
import torch

from fedmepd.config import FUSION_SITE
from fedmepd.evaluation import results
from fedmepd.flare.poc.commands import FlareError
from fedmepd.flare.poc.workspace import Poc
from fedmepd.storage import load_tensors
from fedmepd.tasks.brats import BRATS, PROTOCOL_SUBSETS
from tests.system.conftest import write_cases
from tests.system.simulator import ROOT, TINY

EIGHT = tuple(f"site-{number}" for number in range(1, 9))
ROUNDS = 6
# As small as a federation gets, float32 on the wire.
SETTINGS = TINY | {"rounds": ROUNDS, "aggregation": {"wire_precision": "float32", "round_timeout": 120}}
SECONDS = 420
# Of half a second each.
_LOOKS_AT_REST = 6


def write_cohort(folder: Path, names: Sequence[str], cases: int = 3) -> Path:
    """Writes a data folder with a sub-folder for each site and the fusion site; returns it."""
    for number, name in enumerate(names):
        if not (folder / name).is_dir():
            write_cases(folder / name, name, cases, modalities=PROTOCOL_SUBSETS[number % len(PROTOCOL_SUBSETS)])
    if not (folder / FUSION_SITE).is_dir():
        write_cases(folder / FUSION_SITE, FUSION_SITE, 6, modalities=BRATS.modalities)
    return folder


def merged(settings: dict, **changes: Any) -> dict:
    """Settings of which single sections' keys are changed."""
    found = dict(settings)
    for key, value in changes.items():
        found[key] = found.get(key, {}) | value if isinstance(value, dict) else value
    return found


class Eight:
    """A prepared POC workspace and its processes.

    Args:
        folder: for everything.
        data: as of :func:`write_cohort`.
        names: the sites that have a kit.
        everywhere, fusion_site: as of :meth:`fedmepd.flare.poc.Poc.prepare`.
    """

    def __init__(
        self,
        folder: Path,
        data: Path,
        names: Sequence[str] = EIGHT,
        *,
        everywhere: bool = False,
        fusion_site: str = "",
    ):
        self.folder = folder
        self.names = tuple(names)
        self.lines: list[str] = []
        self.poc = Poc(folder / "w", log=self.lines.append)
        self.poc.prepare(self.names, data, everywhere=everywhere, fusion_site=fusion_site)
        self.job_id = ""
        self._seen: set[str] = set()

    def seconds_until_lost(self, seconds: int) -> None:
        """How long FLARE's server waits for a sign of life of a site; by default ten minutes."""
        path = self.poc.server_kit / "local/resources.json"
        content = json.loads(path.read_text())
        content["servers"][0]["heart_beat_timeout"] = seconds
        path.write_text(json.dumps(content))

    def start(self, *without: str) -> None:
        """Starts the server and the sites."""
        for name in (self.poc.server_kit.name, *(site for site in self.names if site not in without)):
            self.start_one(name)
        count = len(self.names) - len(without)
        self.wait_for_logins(count)

    def start_one(self, name: str, prefix: Sequence[str] = ()) -> None:
        """Starts the server or a site as its operator does; ``prefix``: a command that runs the command."""
        # FLARE's script takes the first python3 that it finds.
        programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        with open(self.folder / f"{name}.out", "a") as out:
            subprocess.run(
                [*prefix, str(self.poc.kit(name) / "startup/start.sh")],
                env=os.environ | {"PATH": programs},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                check=True,
            )

    def kill(self, name: str) -> None:
        """Ends all processes of the server or a site at once."""
        while left := self.processes_of(name):
            # The script that would start the client again comes first.
            for process in sorted(left, key=lambda one: "sub_start.sh" not in " ".join(one.info["cmdline"])):
                try:
                    process.kill()
                except psutil.NoSuchProcess:
                    pass
            psutil.wait_procs(left, timeout=10)

    def kill_job_process(self, name: str) -> None:
        """Ends a site's process for the job alone, as the system does when memory runs out."""
        [process] = [one for one in self.processes_of(name) if self.job_id in str(one.info["cmdline"])]
        process.kill()

    def processes_of(self, name: str) -> list[psutil.Process]:
        mark = f"{self.poc.kit(name)}{os.sep}"
        return [one for one in self.poc.processes() if any(mark in f"{part}/" for part in one.info["cmdline"])]

    def submit(self, settings: dict, *, faults: dict | None = None, deaths: dict | None = None) -> str:
        """Submits the repository's job, deployed everywhere, with other settings and perhaps faults; returns its id."""
        job = self.folder / "job"
        shutil.rmtree(job, ignore_errors=True)
        shutil.copytree(ROOT / "jobs/fedmepd_brats", job)
        shutil.copy(Path(__file__).parent / "faulty/faulty.py", job / "app/custom")
        meta = json.loads((job / "meta.json").read_text()) | {"deploy_map": {"app": ["@ALL"]}}
        (job / "meta.json").write_text(json.dumps(meta))
        server, client = (job / f"app/config/config_fed_{side}.json" for side in ("server", "client"))
        content = json.loads(server.read_text())
        [workflow] = content["workflows"]
        workflow["args"]["settings"] = settings
        if deaths:
            workflow["path"] = "faulty.FaultyController"
            workflow["args"] |= {"plan": deaths, "marks": str(self.folder / "deaths")}
            # By this name, the server knows a job whose sites may come back.
            content["stands_for"] = "fedmepd.flare.controller.FedMEPDController"
        server.write_text(json.dumps(content))
        if faults:
            content = json.loads(client.read_text())
            content["executors"][0]["executor"] = {"path": "faulty.FaultyExecutor", "args": {"plan": faults}}
            client.write_text(json.dumps(content))
        self.job_id = self.poc.submit(job)
        return self.job_id

    def abort(self) -> None:
        self.poc._flare("job", "abort", self.job_id, "--force")

    def is_training(self, name: str) -> bool:
        """Whether a site says in the console that it is in the middle of an epoch."""
        return self._stats(name).get("phase") == "training"

    def delivered(self) -> list[str]:
        """The sites whose update is in, as the server says in the console."""
        return self._stats("server").get("sites_in", [])

    def is_fusing(self, name: str, number: int) -> bool:
        """Whether the fusion site says in the console that it is in the middle of a round's training."""
        return self._stats(name).get("fusion_round") == number

    def _stats(self, name: str) -> dict[str, Any]:
        stats = self.poc._flare("job", "stats", self.job_id)["stats"].get(name, {})
        return next((values for group, values in stats.items() if group.endswith(("Executor", "Controller"))), {})

    def work_until_rest(self) -> float:
        """Waits until no process of the job computes any more; returns the most that any of them computed until then.

        In seconds of a core, which do not depend on what else the machine does.
        """
        looks = [self._seconds_of_job()]

        def at_rest() -> bool:
            # Some may have ended by now.
            looks.append({pid: max(looks[-1].get(pid, 0.0), now) for pid, now in self._seconds_of_job().items()})
            looks[-1] = looks[-2] | looks[-1]
            return len(looks) > _LOOKS_AT_REST and _most(looks[-_LOOKS_AT_REST - 1], looks[-1]) < 0.15

        wait_for(at_rest, "the end of all work")
        return _most(looks[0], looks[-1])

    def _seconds_of_job(self) -> dict[int, float]:
        processes = [one for one in self.poc.processes() if self.job_id in str(one.info["cmdline"])]
        return {one.pid: _seconds_of(one) for one in processes}

    def wait_for_logins(self, count: int) -> None:
        """Waits until the sites have logged in so many times in all."""
        login = re.compile(r"New client \S+ joined|Re-activate the client")

        def all_in() -> bool:
            for out in self.folder.glob("*.out"):
                assert "unable to start" not in out.read_text(errors="replace"), out.read_text(errors="replace")
            return len(login.findall(self.server_log())) >= count

        wait_for(all_in, f"{count} logins")

    def server_log(self) -> str:
        """Of the server itself."""
        return _text(self.poc.server_kit / "log.txt")

    def job_log(self) -> str:
        """Of the server's process for the job; its folder stays until the job has ended."""
        return _text(self.poc.server_kit / self.job_id / "log.txt")

    def site_log(self, name: str) -> str:
        """Of a site's process for the job."""
        return _text(self.poc.kit(name) / self.job_id / "log.txt")

    def wait_for_line(self, text: str, seconds: float = SECONDS) -> None:
        """Waits until the server's process for the job has logged a text."""
        log = ""

        def there() -> bool:
            nonlocal log
            log = self.job_log() or log
            return text in log or self._ended()

        wait_for(there, f"{text!r} in the server's log", seconds)
        assert text in log, f"{text!r} is not in the server's log:\n{log[-3000:]}"

    def _ended(self) -> bool:
        there = (self.poc.server_kit / self.job_id).is_dir()
        self._seen |= {self.job_id} if there else set()
        return not there and self.job_id in self._seen

    def wait_for_round(self, number: int) -> None:
        self.wait_for_line(f"round {number}/")

    def patience_of(self, name: str) -> dict[str, torch.Tensor]:
        """What the server keeps of a site's patience, by layer of the decoder."""
        kept = self.server_state()["method"]["filters"]
        place = kept["sites"].index(name)
        return {layer: rows[place] for layer, rows in kept["state"]["patience"].items()}

    def server_state(self) -> dict[str, Any]:
        """What the server keeps of a run without a name."""
        return load_tensors(self.poc.server_kit / "fedmepd_jobs" / self.job_id / "server_state.pt")

    def status(self) -> str:
        return self.poc._flare("job", "meta", self.job_id)["status"]

    def end_of_job(self, seconds: float = SECONDS) -> str:
        """Waits for the job's end; returns FLARE's word for how."""
        # Each question to FLARE is a process of its own: first wait for what can be seen without.
        wait_for(self._ended, "the job's end", seconds)
        status = ""

        def told() -> bool:
            nonlocal status
            with contextlib.suppress(FlareError):
                status = self.status()
            return status.startswith("FINISHED")

        wait_for(told, "how the job ended", 120)
        return status

    def fetch(self) -> tuple[dict, str, str]:
        """Downloads the ended job; returns its results, their table and the server's log of it."""
        folder = self.poc.download(self.job_id, self.folder / "results")
        table = next(folder.rglob("results.md")).read_text()
        return results.read(results.find(folder)), table, _text(next(folder.rglob("log.txt")))

    def live_results(self) -> dict:
        """The results of the job as they stand."""
        return results.read(self.poc.server_kit / self.job_id / "results/results.json")

    def end(self) -> None:
        """Ends all processes."""
        for process in self.poc.processes():
            process.kill()
        self.poc.stop()


def rounds_of(found: dict) -> dict[str, list[int]]:
    """Returns the rounds that every site took part in."""
    return {site["name"]: site["rounds_taken"] for site in found["sites"]}


def missed_by(found: dict, name: str) -> dict[int, str]:
    """Returns why a site missed which round."""
    [site] = [one for one in found["sites"] if one["name"] == name]
    return {entry["round"]: entry["reason"] for entry in site["rounds_missed"]}


def fill(folder: Path) -> Path:
    """Fills a disk to the last byte; returns the file that does it."""
    filler = folder / "filler"
    with contextlib.suppress(OSError), open(filler, "wb", buffering=0) as file:
        while file.write(b"0" * 4096):
            pass
    return filler


def expand(ranges: str) -> set[int]:
    """Reads 2-3, 5."""
    found = set()
    for part in ranges.split(", "):
        first, _, last = part.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    return found


def wait_for(condition: Callable[[], bool], what: str, seconds: float = SECONDS) -> None:
    """Waits until a condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(0.5)


def _most(before: dict[int, float], after: dict[int, float]) -> float:
    return max((seconds - before.get(pid, 0.0) for pid, seconds in after.items()), default=0.0)


def _seconds_of(process: psutil.Process) -> float:
    try:
        return sum(process.cpu_times()[:2])
    except psutil.NoSuchProcess:
        return 0.0


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.is_file() else ""
