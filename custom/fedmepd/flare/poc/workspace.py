"""A federation of real processes on one machine: FLARE's POC mode, driven by FLARE's own commands.

Every step can be done alone and finds the others' work on disk. Processes are told apart by the workspace in their
command lines, so that nothing else on the machine is ever ended.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

import psutil
import yaml

from fedmepd.closest import one_of
from fedmepd.config import FUSION_SITE
from fedmepd.errors import FedMEPDError
from fedmepd.flare.admin_session import BAD_KIT, AdminSession
from fedmepd.flare.export import (
    change_settings,
    deployed_everywhere,
    fusion_site_of,
    read_meta,
    run_name_of,
    set_fusion_site,
)
from fedmepd.flare.kits import KitSettings
from fedmepd.flare.poc.commands import FlareError, run_flare
from fedmepd.flare.watching import download, naming_jobs, watch
from fedmepd.site_settings import FILE_NAME
from fedmepd.storage import locked, read_json, write_json, write_text
from fedmepd.text_table import counted

PROJECT = "fedmepd_poc"
LOOPBACK = "localhost"
ADMIN = "admin@poc.local"

# A key of the project's file, which FLARE passes over.
_FUSION_SITE = "fusion_site"

_JOB_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True)
class UnfinishedRun:
    """A named run that was started and did not end: its name, and the folder of its job, settings included."""

    name: str
    job: Path


class Poc:
    """A POC workspace.

    Args:
        workspace: its folder; made by :meth:`prepare`.
        log: takes lines about the progress.
        flare: runs FLARE's commands, as :func:`fedmepd.flare.poc.commands.run_flare` does.
        open_session: makes a session in the name of the administrator whose kit this is.

    Attributes:
        start_seconds: to wait for the server and the sites to be ready.
        poll_seconds: between two questions how far a job is.
        stop_seconds: to wait for processes that were asked to end, before they are made to.
        port_seconds: to wait for the server's ports to close.
    """

    start_seconds = 120
    poll_seconds = 1.0
    stop_seconds = 30
    port_seconds = 10

    def __init__(
        self,
        workspace: Path,
        log: Callable[[str], None] = lambda line: None,
        flare: Callable[..., dict[str, Any]] = run_flare,
        open_session: Callable[[Path], AdminSession] = AdminSession,
    ):
        self.workspace = Path(workspace).absolute()
        self.log = log
        self._run_flare, self._open_session = flare, open_session
        self._flare_folder = self.workspace / "poc"

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Keeps another ``fedmepd poc run`` out of the workspace.

        Raises:
            FedMEPDError: one is at work there, or the server or a site runs.
        """
        lock = self.workspace.with_name(f".{self.workspace.name}.lock")
        with locked(lock, f"`fedmepd poc run` is at work in {self.workspace}: choose another --workspace"):
            self._require_stopped()
            yield

    def _require_stopped(self) -> None:
        if self.processes():
            how = f"`fedmepd poc stop --workspace {quote(str(self.workspace))}`"
            raise FedMEPDError(f"{self.workspace} is running: stop it first, {how}")

    def prepare(
        self,
        sites: Sequence[str],
        data: Path | None,
        *,
        port: int | None = None,
        everywhere: bool = False,
        fusion_site: str = "",
    ) -> None:
        """Makes the workspace: a kit for the server and every site, each with a data folder of its own.

        Args:
            sites: their names.
            data: folder with a sub-folder for each site and one for the fusion site; None: phantoms are made.
            port: of the server, the next one is its admin port; None: free ones.
            everywhere: let the server listen on all of the machine's addresses instead of loopback alone.
            fusion_site: the site that is the fusion site too, in all jobs that are submitted here; the server then gets
                no data folder. Empty: the server.

        Raises:
            FedMEPDError: a site has no data, the fusion site is none of the sites, a port is taken, or the workspace is
                in use, is something else, or holds what jobs have left.
        """
        self._require_stopped()
        if self.workspace.exists() and any(self.workspace.iterdir()) and not self._project_file.is_file():
            raise FedMEPDError(f"{self.workspace} is no POC workspace: choose another folder")
        if jobs := self.jobs():
            raise FedMEPDError(
                f"{self.workspace} holds the sites' models and logs of earlier jobs (such as {jobs[0]}), which FLARE "
                "would remove: choose another --workspace; or run one more job in this one with `fedmepd poc start`, "
                "`submit`, `watch`, `download` and `stop`; or remove it all with `fedmepd poc clean`"
            )
        if fusion_site and fusion_site not in sites:
            raise FedMEPDError(f"the fusion site {fusion_site!r}: {one_of(fusion_site, sites)}")
        folders = self._data_folders(sites, data)
        ports = _ports(port)
        project = _project(sites, ports, everywhere) | {_FUSION_SITE: fusion_site}
        write_text(self._project_file, yaml.safe_dump(project, sort_keys=False))
        self._flare("poc", "prepare", "-i", str(self._project_file), "--force")
        fusion_folder = folders.pop(FUSION_SITE)
        if fusion_site:
            # The folder that has both: the sub-folder of the site's own cases, and that of the fusion cases.
            folders[fusion_site] = fusion_folder.parent
        # Made-up cases are nobody's.
        open_values = {"min_count": 1, "reproducible": "yes"} if data is None else {}
        for name, folder in folders.items():
            write_json(self.kit(name) / "local" / FILE_NAME, {"data": str(folder), **open_values})
        if not fusion_site:
            write_json(self.server_kit / "local" / FILE_NAME, {"data": str(fusion_folder), **open_values})
        for kit in (self.server_kit, *map(self.kit, sites)):
            KitSettings(kit).set_up()
        fusion = f"; {fusion_site} is the fusion site" if fusion_site else ""
        self.log(f"prepared {counted(len(sites), 'site')} and a server on port {ports[0]} in {self.workspace}{fusion}")

    def _data_folders(self, sites: Sequence[str], data: Path | None) -> dict[str, Path]:
        """Returns the folder with the cases of every site, and of the fusion site."""
        if len(set(sites)) < len(sites) or not sites:
            raise FedMEPDError(f"sites {', '.join(sites)}: expected each name once")
        names = [*sites, FUSION_SITE]
        if data is None:
            from fedmepd.data.phantom_cohorts import ensure_site

            self.log("makes phantoms for every site")
            return {name: ensure_site(self.workspace / "data", name, 0) for name in names}
        folders = {name: Path(data).absolute() / name for name in names}
        missing = [folder for folder in folders.values() if not folder.is_dir()]
        if missing:
            raise FedMEPDError(
                f"{missing[0]} does not exist: expected a sub-folder of {data} for each of "
                f"{', '.join(names)}; `fedmepd data split` makes them"
            )
        from fedmepd.data.same_patients import require_apart
        from fedmepd.tasks.find import find_task, task_names

        # The jobs that are submitted later say what the cases are of.
        require_apart(folders, [find_task(name) for name in task_names()])
        return folders

    def start(self) -> None:
        """Starts the server and all sites, and waits until they are ready."""
        self._require_prepared()
        # FLARE's own wait asks again every second, and never returns if an answer is late once.
        self._flare("poc", "start", "--no-wait")
        missing, deadline = set(self.sites()), time.monotonic() + self.start_seconds
        with self._session() as session:
            while missing:
                reason = f"without {', '.join(sorted(missing))}"
                try:
                    missing = set(self.sites()) - set(session.sites())
                except FlareError as error:
                    if error.code == BAD_KIT:
                        raise
                    # It is not there yet.
                    reason = str(error)
                if missing and time.monotonic() > deadline:
                    raise FlareError(
                        f"server and sites are not ready after {self.start_seconds} s ({reason}): see "
                        f"{self.server_kit / 'log.txt'}"
                    )
                if missing:
                    time.sleep(self.poll_seconds)
        self.log(f"started the server and {counted(len(self.sites()), 'site')}")

    def submit(self, job: Path, changes: dict[str, Any] | None = None) -> str:
        """Submits a job; returns its id.

        Args:
            job: its folder, which stays as it is.
            changes: of its settings, nested like the settings themselves.

        Raises:
            FedMEPDError: the folder is no job, it names another fusion site than the workspace has, it cannot have
                these settings, or the server refuses it.
        """
        self._require_prepared()
        with _deployable(Path(job), self.sites(), self.fusion_site, changes or {}) as folder:
            job_id = self._flare("job", "submit", "-j", str(folder))["job_id"]
        self.log(f"submitted {Path(job).name}: job {job_id}")
        return job_id

    def require_fit(
        self,
        sites: Sequence[str] | None,
        data: Path | None,
        fusion_site: str | None,
        port: int | None = None,
        everywhere: bool = False,
    ) -> None:
        """Raises an error if the workspace was prepared for something else; None: whatever it was prepared for.

        Raises:
            FedMEPDError: the message says what is different.
        """
        found = []
        if sites is not None and list(sites) != self.sites():
            found.append(f"the sites {' '.join(self.sites())}")
        if data is not None:
            folders = {self._data_of(site).parent for site in self.sites() if site != self.fusion_site}
            if folders != {Path(data).absolute()}:
                found.append(f"the data in {' '.join(map(str, sorted(folders)))}")
        if fusion_site is not None and fusion_site != self.fusion_site:
            found.append(f"the fusion site {self.fusion_site or 'at the server'}")
        server = self._server()
        if port is not None and port != server["fed_learn_port"]:
            found.append(f"port {server['fed_learn_port']}")
        if everywhere and server["name"] == LOOPBACK:
            found.append("addresses of this machine alone")
        if found:
            raise FedMEPDError(
                f"{self.workspace} was prepared for {' and '.join(found)}, and holds the models of its jobs: leave "
                "these options out to run one more job there, or choose another --workspace"
            )

    def _data_of(self, site: str) -> Path:
        file = self.kit(site) / "local" / FILE_NAME
        data = read_json(file, "the settings of a site").get("data")
        if not isinstance(data, str):
            raise FedMEPDError(f"{file}: data = {data!r}: expected the folder of the site's cases")
        return Path(data)

    def keep_job(self, job: Path, changes: dict[str, Any]) -> UnfinishedRun | None:
        """Keeps a job with a run name until its run is finished, so that :meth:`unfinished` finds it.

        Raises:
            FedMEPDError: the folder is no job, or cannot have these settings.
        """
        name = changes.get("run_name") or run_name_of(job)
        if not name:
            return None
        kept = self.workspace / "jobs" / f"{name}-{uuid.uuid4().hex[:8]}" / job.name
        shutil.copytree(job, kept)
        change_settings(kept, changes)
        run = UnfinishedRun(name, kept)
        self._note(run, finished=False)
        return run

    def unfinished(self) -> UnfinishedRun | None:
        """Returns the named run that was started last, if it is not finished."""
        if not self._run_file.is_file():
            return None
        content = read_json(self._run_file, "the last named run of a POC workspace")
        try:
            run = UnfinishedRun(content["run_name"], self.workspace / content["job"])
            return None if content["finished"] else run
        except (KeyError, TypeError) as error:
            raise FedMEPDError(
                f"{self._run_file} is damaged ({error}): remove it; the run's job can then be submitted again with its "
                "run_name"
            ) from error

    def finish(self, run: UnfinishedRun) -> None:
        """Notes that a run is finished."""
        self._note(run, finished=True)

    def _note(self, run: UnfinishedRun, *, finished: bool) -> None:
        job = str(run.job.relative_to(self.workspace))
        write_json(self._run_file, {"run_name": run.name, "job": job, "finished": finished})

    @property
    def _run_file(self) -> Path:
        return self.workspace / "run.json"

    def watch(self, job_id: str) -> str:
        """Reports a job's rounds until it ends; returns FLARE's word for how.

        Raises:
            FedMEPDError: there is no such job or workspace, or the server does not answer any more.
        """
        self._require_prepared()
        with naming_jobs(self._flare, job_id), self._session() as session:
            return watch(session, job_id, lambda event, line, live: self.log(line), self.poll_seconds)

    def download(self, job_id: str, out: Path) -> Path:
        """Downloads a job's results from the server and returns their folder.

        Raises:
            FedMEPDError: they are there already, or cannot be fetched; nothing that is there is touched.
        """
        self._require_prepared()
        with naming_jobs(self._flare, job_id):
            return download(self._flare, job_id, out, self.log)

    def stop(self) -> None:
        """Ends the server, all sites and all that they have started.

        Raises:
            FedMEPDError: a process or port is still there.
        """
        if not self._project_file.is_file():
            return
        if self.processes():
            with contextlib.suppress(FlareError):
                # What does not answer is ended below.
                self._flare("poc", "stop")
            self._wait_for_end(self.stop_seconds)
        for end in (psutil.Process.terminate, psutil.Process.kill):
            left = self.processes()
            for process in left:
                with contextlib.suppress(psutil.NoSuchProcess):
                    end(process)
            if left:
                self._wait_for_end(5)
        open_ports = self._wait_for_ports(self.port_seconds)
        if self.processes() or open_ports:
            still = [str(process.pid) for process in self.processes()] + [f"port {port}" for port in open_ports]
            raise FedMEPDError(f"not everything has ended: {', '.join(still)}")
        self.log("stopped; no process and no port is left")

    def clean(self) -> None:
        """Removes the workspace, models included.

        Raises:
            FedMEPDError: it is running.
        """
        self._require_stopped()
        self._require_prepared()
        self._flare("poc", "clean")
        shutil.rmtree(self.workspace)
        self.log(f"removed {self.workspace}")

    def processes(self) -> list[psutil.Process]:
        """Returns the live processes of this workspace."""
        mark = f"{self._flare_folder}{os.sep}"
        found = []
        for process in psutil.process_iter(["cmdline", "status"]):
            ended = process.info["status"] == psutil.STATUS_ZOMBIE
            if not ended and any(mark in part for part in process.info["cmdline"] or ()):
                found.append(process)
        return found

    def _wait_for_end(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while self.processes() and time.monotonic() < deadline:
            time.sleep(0.5)

    def _wait_for_ports(self, seconds: float) -> list[int]:
        """Returns the server's ports that are still open then: a process loses its name before its ports."""
        deadline = time.monotonic() + seconds
        while True:
            still = [port for port in self._server_ports() if _is_open(port)]
            if not still or time.monotonic() > deadline:
                return still
            time.sleep(0.2)

    def kit(self, name: str) -> Path:
        """Returns the folder of a site's kit."""
        return self._flare_folder / PROJECT / "prod_00" / name

    @property
    def server_kit(self) -> Path:
        """The folder of the server's kit."""
        return self.kit(self._server()["name"])

    def sites(self) -> list[str]:
        """Returns the names of the sites that the workspace was prepared for."""
        return [entry["name"] for entry in self._participants() if entry["type"] == "client"]

    @property
    def fusion_site(self) -> str:
        """The site that is the fusion site of this workspace's jobs; empty: the server."""
        return self._content().get(_FUSION_SITE, "")

    def jobs(self) -> list[str]:
        """Returns the ids of the jobs that a kit holds files of, and the names of the folders of runs."""
        names = {path.name for path in self._flare_folder.glob(f"{PROJECT}/prod_*/*/*") if path.is_dir()}
        return sorted(name for name in names if _JOB_ID.fullmatch(name) or name in ("fedmepd_runs", "fedmepd_jobs"))

    def _server_ports(self) -> list[int]:
        server = self._server()
        return [server["fed_learn_port"], server["admin_port"]]

    def _server(self) -> dict[str, Any]:
        [server] = [entry for entry in self._participants() if entry["type"] == "server"]
        return server

    def _participants(self) -> list[dict[str, Any]]:
        return self._content()["participants"]

    def _content(self) -> dict[str, Any]:
        return yaml.safe_load(self._project_file.read_text(encoding="utf-8"))

    @property
    def _project_file(self) -> Path:
        return self.workspace / "project.yml"

    def _require_prepared(self) -> None:
        if not self._project_file.is_file():
            raise FedMEPDError(f"{self.workspace} is no POC workspace: `fedmepd poc prepare` makes one")

    def _flare(self, *arguments: str) -> dict[str, Any]:
        # FLARE would take the admin's kit that was noted last, which may be that of a federation of hospitals.
        kit = None if arguments[0] == "poc" else self.kit(ADMIN)
        return self._run_flare(arguments, poc=self._flare_folder, kit=kit)

    def _session(self) -> AdminSession:
        return self._open_session(self.kit(ADMIN))


def _project(sites: Sequence[str], ports: tuple[int, int], everywhere: bool) -> dict[str, Any]:
    # Of a server that is reached by a loopback name, FLARE listens on loopback alone.
    server = {"name": LOOPBACK, "type": "server", "org": "poc", "fed_learn_port": ports[0], "admin_port": ports[1]}
    if everywhere:
        server |= {"name": socket.gethostname(), "host_names": [LOOPBACK]}
    clients = [{"name": site, "type": "client", "org": "poc"} for site in sites]
    admin = {"name": ADMIN, "type": "admin", "org": "poc", "role": "project_admin"}
    return {
        "api_version": 3,
        "name": PROJECT,
        "description": "FedMEPD on one machine",
        "participants": [server, *clients, admin],
        "builders": [
            {
                "path": "nvflare.lighter.impl.workspace.WorkspaceBuilder",
                "args": {"template_file": ["master_template.yml"]},
            },
            {"path": "nvflare.lighter.impl.static_file.StaticFileBuilder", "args": {"config_folder": "config"}},
            {"path": "nvflare.lighter.impl.cert.CertBuilder"},
            {"path": "nvflare.lighter.impl.signature.SignatureBuilder"},
        ],
    }


def _ports(port: int | None) -> tuple[int, int]:
    if port is not None:
        taken = [number for number in (port, port + 1) if _is_open(number)]
        if taken:
            raise FedMEPDError(f"port {taken[0]} is taken: choose another --port")
        return port, port + 1
    with contextlib.ExitStack() as stack:
        free = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2)]
        first, second = (one.getsockname()[1] for one in free)
    return first, second


def _is_open(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def _deployable(job: Path, sites: Sequence[str], fusion_site: str, changes: dict[str, Any]) -> Iterator[Path]:
    """Gives the job, or a copy: deployed everywhere if it names other sites, with the workspace's fusion site."""
    meta = read_meta(job)
    named = {name for places in meta["deploy_map"].values() for name in places}
    asked = fusion_site_of(job)
    if asked and asked not in sites:
        raise FedMEPDError(f"{job}: fusion.site is {asked!r}: {one_of(asked, sites)}")
    if asked and fusion_site and asked != fusion_site:
        raise FedMEPDError(
            f"{job}: fusion.site is {asked!r}, but this workspace was prepared for {fusion_site!r}: change the job, or "
            f"prepare another workspace with --fusion-site {asked}"
        )
    fits = named >= set(sites) or "@ALL" in named
    if fits and fusion_site in ("", asked) and not changes:
        yield job
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / job.name
        shutil.copytree(job, copy)
        if not fits:
            write_json(copy / "meta.json", deployed_everywhere(meta))
        if fusion_site:
            set_fusion_site(copy, fusion_site)
        if changes:
            change_settings(copy, changes)
        yield copy
