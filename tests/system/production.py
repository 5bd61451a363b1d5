"""A federation of provisioned kits on this machine, driven by the commands that its people type."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import yaml

from fedmepd.flare.poc.commands import answer_of
from tests.system.simulator import ROOT

PROJECT = ROOT / "provisioning/project.yml"
SERVER = "localhost"
ADMIN, LEAD, MEMBER = "admin@fedmepd.example.org", "lead@fedmepd.example.org", "member@hospital-2.example.org"
SECONDS = 240


def provision(folder: Path, environment: dict[str, str], **changes: Any) -> Path:
    """Provisions the repository's project, its server's name and port changed; returns the folder of kits.

    Args:
        folder: for the workspace.
        environment: of the command.
        changes: of the server's entry.
    """
    project = yaml.safe_load(PROJECT.read_text())
    server, *_ = project["participants"]
    server |= changes
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "project.yml"
    file.write_text(yaml.safe_dump(project, sort_keys=False))
    command = ["provision", "-p", str(file), "-w", str(folder / "workspace")]
    run = subprocess.run(
        [sys.executable, "-m", "nvflare.cli", *command], env=environment, capture_output=True, text=True, timeout=120
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return folder / "workspace" / project["name"] / "prod_00"


class Federation:
    """Kits that are started, and all that is in them ended whatever happens.

    Args:
        folder: for everything.
        cache: for prepared cases.
    """

    def __init__(self, folder: Path, cache: Path):
        self.folder = folder
        self.jobs = folder / "kept"
        home = folder / "home"
        home.mkdir(parents=True)
        programs = str(Path(sys.executable).parent)
        self.environment = os.environ | {
            "HOME": str(home),
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "FEDMEPD_CACHE": str(cache),
            "FEDMEPD_DEVICE": "cpu",
            "OMP_NUM_THREADS": "1",
        }
        for decided in ("FEDMEPD_DATA", "FEDMEPD_MIN_COUNT", "FEDMEPD_REPRODUCIBLE"):
            self.environment.pop(decided, None)
        with socket.create_server(("127.0.0.1", 0)) as one:
            self.port = one.getsockname()[1]
        self.kits = provision(folder, self.environment, name=SERVER, fed_learn_port=self.port)

    def kit(self, name: str) -> Path:
        return self.kits / name

    def log(self, name: str) -> str:
        """The log of the server or of a site's client, without those of its jobs."""
        path = self.kit(name) / "log.txt"
        return path.read_text() if path.is_file() else ""

    def fedmepd(self, *arguments: str | Path) -> str:
        """Runs our command line; returns what it printed."""
        command = [sys.executable, "-m", "fedmepd.cli", *map(str, arguments)]
        run = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=120)
        assert run.returncode == 0, run.stderr
        return run.stdout

    def flare(self, *arguments: str, by: str = LEAD) -> dict[str, Any]:
        """Runs a FLARE command with somebody's kit; returns its data.

        Raises:
            FlareError: it failed.
        """
        command = [*arguments, "--startup-kit", str(self.kit(by)), "--format", "json"]
        run = subprocess.run(
            [sys.executable, "-m", "nvflare.cli", *command],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            stdin=subprocess.DEVNULL,
        )
        return answer_of(arguments, run.stdout, run.stderr)

    def nvflare(self, command: str, *more: str) -> None:
        """Runs a FLARE command in the federation's folder."""
        run = subprocess.run(
            [sys.executable, "-m", "nvflare.cli", *command.split(), *more],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
            stdin=subprocess.DEVNULL,
        )
        assert run.returncode == 0, run.stdout + run.stderr

    def start(self, *names: str) -> None:
        """Starts the server or sites as their operators do."""
        for name in names:
            self.start_kit(self.kit(name))

    def start_kit(self, kit: Path) -> None:
        """Starts what a kit is of."""
        with open(self.folder / f"{kit.name}.out", "w") as out:
            subprocess.run(
                [kit / "startup/start.sh"],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                check=True,
            )

    def run_client(self, kit: Path, name: str) -> Path:
        """Starts a client of a copied kit under any name; it ends with the federation. Returns its output's file."""
        copy = Path(tempfile.mkdtemp(dir=self.folder)) / kit.name
        shutil.copytree(kit, copy)
        options = ["-m", str(copy), "-s", "fed_client.json", "--set", "secure_train=true", f"uid={name}", "org=x"]
        with open(copy / "out", "w") as out:
            subprocess.Popen(
                [sys.executable, "-m", "nvflare.private.fed.app.client.client_train", *options, "config_folder=config"],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return copy / "out"

    def run_job(self, job: Path, seconds: float = SECONDS) -> tuple[str, str]:
        """Submits a job and waits for its end; returns its id and FLARE's word for how it ended."""
        job_id = self.flare("job", "submit", "-j", str(job))["job_id"]
        kept = self.jobs / "jobs" / job_id / "meta"

        def ended() -> bool:
            # Each question to FLARE is a process of its own: first wait for what can be seen without.
            with contextlib.suppress(OSError, ValueError):
                return json.loads(kept.read_text())["status"].startswith("FINISHED")
            return False

        wait_for(ended, f"the end of {job.name}", seconds)
        return job_id, self.flare("job", "meta", job_id)["status"]

    def processes(self, of: Path | None = None) -> list[psutil.Process]:
        """The live processes of a kit, or of all kits below a folder; by default of copies too."""
        folder = str(of or self.folder)
        found = []
        for process in psutil.process_iter(["cmdline", "status"]):
            ended = process.info["status"] == psutil.STATUS_ZOMBIE
            if not ended and any(f"{part}/".startswith(f"{folder}/") for part in process.info["cmdline"] or ()):
                found.append(process)
        return found

    def end(self) -> None:
        """Ends all processes by force."""
        while left := self.processes():
            for process in left:
                try:
                    process.kill()
                except psutil.NoSuchProcess:
                    pass
            psutil.wait_procs(left, timeout=10)


def wait_for(condition: Callable[[], bool], what: str, seconds: float = SECONDS) -> None:
    """Waits until a condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(0.25)
