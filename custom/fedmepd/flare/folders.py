"""Where a run keeps its state: on the server and at each site.

A named run lives outside the job's run folder, where the next job with the same run name finds it again:
``<workspace>/fedmepd_runs/<run name>``. The simulator empties its workspace at every start, so there it is
``<workspace>_runs/<run name>/<server or site>`` beside it. A run without a name lives and ends with its job: at a site,
and in the simulator, in ``<run folder>/fedmepd``. A server's run folder is packed for whoever downloads the job, and a
state is not for them: it holds single sites' tensors. So at a server it is in ``<workspace>/fedmepd_jobs/<job>``.
"""

from __future__ import annotations

import contextlib
import os
import re
import uuid
from pathlib import Path

from nvflare.apis.fl_constant import FLContextKey, ProcessType
from nvflare.apis.fl_context import FLContext

from fedmepd.config import FUSION_SITE, Settings
from fedmepd.errors import CheckpointError
from fedmepd.federation import egress
from fedmepd.flare.private import SIMULATOR_JOB
from fedmepd.privacy.participant import Account
from fedmepd.released_means import FILE_NAME as MEANS
from fedmepd.released_means import ReleasedMeans
from fedmepd.storage import read_json, write_json

_IDENTITY = re.compile("[0-9a-f]{32}")


def is_identity(text: str) -> bool:
    """Whether a text is the identity of a run: 32 hexadecimal digits. At a site it becomes the name of a folder."""
    return _IDENTITY.fullmatch(text) is not None


def in_simulator(fl_ctx: FLContext) -> bool:
    """Whether this process belongs to FLARE's simulator.

    At a site, the simulator's own mark says so: a server may give any job the name that the simulator's jobs have.
    Servers have no such mark, and name their jobs themselves.
    """
    if fl_ctx.get_process_type() == ProcessType.CLIENT_JOB:
        return is_simulated_site(fl_ctx)
    return fl_ctx.get_job_id() == SIMULATOR_JOB


def is_simulated_site(fl_ctx: FLContext) -> bool:
    """Whether this site's process was started by the simulator, by what the process itself says.

    Sites in the simulator are more open than others. A job's name does not decide that: the server gives it.
    """
    return bool(fl_ctx.get_prop(FLContextKey.SIMULATE_MODE, False))


def server_name(fl_ctx: FLContext) -> str:
    """Returns name and address of the server that this site's kit belongs to; in the simulator there is none."""
    file = Path(fl_ctx.get_workspace().get_startup_kit_dir()) / "fed_client.json"
    if not file.is_file():
        return "server"
    try:
        [server, *_] = read_json(file, "the configuration of a FLARE site")["servers"]
        return f"{server['name']} {server['service']['target']}"
    except (KeyError, TypeError, ValueError):
        return "server"


def egress_file(fl_ctx: FLContext) -> Path:
    """Returns the file with the list of all that has left this site, whatever the job."""
    return Path(fl_ctx.get_workspace().get_root_dir()) / egress.FILE_NAME


def released_means(fl_ctx: FLContext) -> ReleasedMeans:
    """Returns what knows over whose cases means have left this participant, whatever the job.

    Raises:
        FedMEPDError: its file cannot be read, or holds something else.
    """
    return ReleasedMeans(Path(fl_ctx.get_workspace().get_root_dir()) / MEANS)


def written(fl_ctx: FLContext) -> tuple[list[Path], list[Path]]:
    """Returns everything that this package has written in a site's kit.

    Returns:
        the folders with states and models of all runs; and the books that are kept of all of them.
    """
    root = Path(fl_ctx.get_workspace().get_root_dir())
    books = root / egress.FILE_NAME, root / MEANS, Account.folder_in(root)
    return _of_runs(root), [path for path in books if path.exists()]


def has_had_runs(kit: Path) -> bool:
    """Whether there is a trace of a run in a kit."""
    return bool(_of_runs(kit)) or (Path(kit) / egress.FILE_NAME).is_file()


def _of_runs(root: Path) -> list[Path]:
    """The folders with states and models of all runs so far, also those of a server that has been the fusion site."""
    places = root / "fedmepd_runs", root / "fedmepd_jobs", *root.glob("*/fedmepd")
    return [folder for folder in places if folder.is_dir()]


def run_folder(fl_ctx: FLContext) -> Path:
    """Returns the job's run folder, which FLARE makes for the job and hands out with its results."""
    return Path(fl_ctx.get_workspace().get_run_dir(fl_ctx.get_job_id()))


def local_folder(fl_ctx: FLContext) -> Path:
    """Returns the folder with what this server's or site's administrator configured."""
    return Path(fl_ctx.get_workspace().get_site_config_dir())


def state_folder(fl_ctx: FLContext, settings: Settings) -> Path:
    """Returns the folder for the run's state in the simulator, or on this site; it need not exist."""
    if not settings.run_name:
        return run_folder(fl_ctx) / "fedmepd"
    root = Path(fl_ctx.get_workspace().get_root_dir()).resolve()
    if in_simulator(fl_ctx):
        return root.parent.with_name(root.parent.name + "_runs") / settings.run_name / root.name
    return root / "fedmepd_runs" / settings.run_name


def server_folder(fl_ctx: FLContext, settings: Settings) -> Path:
    """Returns the folder for the run's state on this server; it need not exist."""
    if settings.run_name or in_simulator(fl_ctx):
        return state_folder(fl_ctx, settings)
    return Path(fl_ctx.get_workspace().get_root_dir()).resolve() / "fedmepd_jobs" / fl_ctx.get_job_id()


def download_folder(fl_ctx: FLContext) -> Path | None:
    """Returns the folder in which whoever downloads the job finds the global model.

    None in the simulator, where nobody downloads and the run folder leads to the model anyway.
    """
    return None if in_simulator(fl_ctx) else run_folder(fl_ctx) / "fedmepd"


def privacy_account(fl_ctx: FLContext, folder: Path) -> Account:
    """Returns where a participant notes what it has spent of its privacy budget.

    It is one file for all runs, in the kit's own folder: a server that submits a second job does not get a second
    budget. In the simulator every run has its own.

    Args:
        fl_ctx: of this server or site.
        folder: of the participant's state in the run, which identifies it there.
    """
    if in_simulator(fl_ctx):
        return Account.of_run(folder)
    root = Path(fl_ctx.get_workspace().get_root_dir()).resolve()
    # By its name within the kit: where a link there leads may change, and the run is the same still.
    run = folder.relative_to(root)
    return Account(Account.file_in(root, fusion=folder.name == FUSION_SITE), str(run))


def site_folder(fl_ctx: FLContext, settings: Settings, identity: str) -> Path:
    """Returns the folder for a site's state in the run with this identity, which :func:`is_identity` has checked.

    A run folder belongs to one job anyway; a run's name may be used again after the server has lost its state.
    """
    folder = state_folder(fl_ctx, settings)
    return folder / identity if settings.run_name else folder


def show_state(fl_ctx: FLContext, settings: Settings, folder: Path) -> None:
    """Lets ``fedmepd`` in the run folder lead to the state of a named run in the simulator, models included.

    Elsewhere FLARE packs the server's run folder for download.

    Args:
        fl_ctx: of the server or site.
        settings: of the job.
        folder: of its state.
    """
    if not settings.run_name or not in_simulator(fl_ctx):
        return
    link = run_folder(fl_ctx) / "fedmepd"
    # It is there when each task of a site has a process of its own; not every file system has links.
    with contextlib.suppress(OSError):
        link.symlink_to(os.path.relpath(folder, link.parent), target_is_directory=True)


def run_identity(folder: Path) -> str:
    """Returns the identity of the run whose server state is in ``folder``; makes one if it has none yet.

    Raises:
        CheckpointError: the file that holds it is damaged.
    """
    path = folder / "run.json"
    if not path.is_file():
        write_json(path, {"identity": uuid.uuid4().hex})
    hint = f": remove {folder} to start the run afresh"
    content = read_json(path, "the identity of a run", CheckpointError, hint=hint)
    identity = content.get("identity")
    if not isinstance(identity, str) or not is_identity(identity):
        raise CheckpointError(f"{path} is damaged, its identity is none of 32 hexadecimal digits{hint}")
    return identity
