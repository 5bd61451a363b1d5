"""Runs the default job through FLARE's recipe API, on this machine: ``python job.py --help``."""

import argparse
import json
import os
import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from fedmepd import methods
from fedmepd.cli.parser import Parser
from fedmepd.cli.settings_options import add_set_option, changes
from fedmepd.cli.terminal import FAILED, INTERRUPTED, guarded_output, interruptible, positive, refuse, warn
from fedmepd.closest import like_path, one_of
from fedmepd.errors import FedMEPDError
from fedmepd.text_table import counted

if TYPE_CHECKING:
    from fedmepd.config import Settings
    from fedmepd.flare.simulator_runs import SimulatorRun, StartedWith

DEFAULT_SITES = 8
DEFAULT_WORKSPACE = "workspace"

# Settings that have an option of their own.
_OPTIONS = {"method": "--method", "seed": "--seed", "rounds": "--rounds", "run_name": "--run-name"} | {
    "network.width": "--width",
    "training.crop": "--crop",
    "fusion.site": "--fusion-site",
    "evaluation.cross_site": "--cross-site",
}
# Options that may be given beside --resume: all else is as the run was started.
_WITH_RESUME = ("resume", "run_name", "workspace", "threads", "device")
_OF_EACH_MACHINE = "each machine says so itself, in FEDMEPD_{0} or its fedmepd.json"
_OF_WHOEVER_RUNS_IT = "that is up to whoever runs the job"
# Options that no job can hold, and why.
_NOT_IN_A_JOB = {
    "data": _OF_EACH_MACHINE.format("DATA"),
    "device": _OF_EACH_MACHINE.format("DEVICE"),
    "sites": _OF_WHOEVER_RUNS_IT,
    "threads": _OF_WHOEVER_RUNS_IT,
    "workspace": _OF_WHOEVER_RUNS_IT,
    "fresh": _OF_WHOEVER_RUNS_IT,
    "resume": _OF_WHOEVER_RUNS_IT,
}


def main() -> int:
    parser = build_parser()
    arguments = parser.parse_args()
    with guarded_output(), interruptible() as interrupted:
        try:
            return run(arguments, parser, interrupted)
        except (FedMEPDError, OSError) as error:
            return refuse("job.py", error)
        except KeyboardInterrupt:
            print("job.py: interrupted; nothing is running", file=sys.stderr)
            return INTERRUPTED


def run(arguments: argparse.Namespace, parser: argparse.ArgumentParser, interrupted: threading.Event) -> int:
    """Runs or exports the jobs; returns the exit status.

    Raises:
        FedMEPDError: an option or a setting cannot be used, or a folder holds something else.
    """
    given = given_options(parser)
    if arguments.export is not None and (wrong := [name for name in _NOT_IN_A_JOB if name in given]):
        raise FedMEPDError(f"--export only writes a job: leave out {option_of(wrong[0])}; {_NOT_IN_A_JOB[wrong[0]]}")
    if arguments.resume and (wrong := [name for name in given if name not in _WITH_RESUME]):
        raise FedMEPDError(f"--resume goes on with what the run was started with: leave out {option_of(wrong[0])}")
    if arguments.device is not None:
        # It belongs to a machine, not to the job; all processes of the simulator inherit it.
        os.environ["FEDMEPD_DEVICE"] = arguments.device
    # Importing nvflare.recipe takes --export out of sys.argv, so the command line is read before.
    sys.argv[1:] = []
    from fedmepd.flare.simulator_runs import SimulatorRun, latest_run
    from fedmepd.site_settings import SiteSettings

    workspace = workspace_of(arguments)
    starts = [] if arguments.resume else planned(arguments)
    if arguments.export:
        for started in starts:
            export(started, Path(arguments.export), several=len(starts) > 1)
        return 0
    # Refused here, before there are a folder and eight processes.
    SiteSettings.load().torch_device()
    if arguments.resume:
        one = SimulatorRun(workspace / arguments.run_name) if arguments.run_name else latest_run(workspace)
        runs = [one, *one.following()]
    else:
        runs = claimed(starts, workspace, arguments)
    for number, one in enumerate(runs, start=1):
        if status := go_on(one, arguments, interrupted, left=len(runs) - number):
            return status
    return 0


def given_options(parser: argparse.ArgumentParser) -> list[str]:
    """Returns the names of the options on the command line, also of those that repeat their default."""
    absent = object()
    # A list of what is given several times is empty without any.
    names = [name for name, value in vars(parser.parse_args([])).items() if value != []]
    found = parser.parse_args(namespace=argparse.Namespace(**dict.fromkeys(names, absent)))
    return [name for name, value in vars(found).items() if value is not absent and value != []]


def option_of(name: str) -> str:
    """Returns an option as it is written."""
    return f"--{name.replace('_', '-')}"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(option_of, names))


def workspace_of(arguments: argparse.Namespace) -> Path:
    """Returns the folder for all runs, which an environment variable of FLARE's may name too."""
    from nvflare.recipe.sim_env import SimEnv

    return Path(SimEnv(num_clients=1, workspace_root=os.path.abspath(arguments.workspace)).workspace_root).absolute()


def planned(arguments: argparse.Namespace) -> "list[StartedWith]":
    """Returns what each of the runs that the options ask for is started with, all of it checked.

    Raises:
        FedMEPDError: an option or a setting cannot be used.
    """
    from fedmepd.flare.recipe import FedMEPDRecipe
    from fedmepd.flare.simulator_runs import StartedWith
    from fedmepd.job_settings import make_settings

    settings = changes(arguments.set, _OPTIONS)
    if arguments.cross_site:
        settings.setdefault("evaluation", {})["cross_site"] = True
    recipes = [
        FedMEPDRecipe(
            preset=arguments.preset,
            method=method,
            rounds=arguments.rounds,
            seed=seed,
            width=arguments.width,
            crop=arguments.crop,
            run_name=arguments.run_name if arguments.export else None,
            fusion_site=arguments.fusion_site,
            settings=settings,
        )
        for method in arguments.method
        for seed in arguments.seeds or [arguments.seed]
    ]
    if arguments.export:
        return [StartedWith(arguments.preset, recipe.settings, [], None) for recipe in recipes]
    data = arguments.data or os.environ.get("FEDMEPD_DATA") or None
    if data is None:
        require_phantoms_of(make_settings(arguments.preset, recipes[0].settings))
    sites = site_names(data, arguments.sites, recipes[0].settings)
    if arguments.fusion_site and arguments.fusion_site not in sites:
        raise FedMEPDError(f"--fusion-site {arguments.fusion_site}: {one_of(arguments.fusion_site, sites)}")
    phantom = settings.get("data", {}).get("phantom")
    if data is not None and phantom:
        where = f"--data {data}" if arguments.data else f"FEDMEPD_DATA={data}"
        raise FedMEPDError(
            f"--set data.phantom={json.dumps(phantom)}: phantoms are made where there are no cases, but {where} names "
            "some: leave out one of the two"
        )
    place = os.path.abspath(data) if data else None
    return [StartedWith(arguments.preset, recipe.settings, sites, place) for recipe in recipes]


def export(started: "StartedWith", folder: Path, several: bool) -> None:
    """Writes a job instead of running it; of several, each job has a name of its own, and so has each run."""
    from fedmepd.flare.recipe import FedMEPDRecipe
    from fedmepd.tasks.find import DEFAULT

    settings, method = dict(started.settings), started.settings["method"]
    number = settings.get("seed", 0)
    name = f"{method}_{settings.get('task', DEFAULT)}{f'-{number}' if several else ''}"
    if several and settings.get("run_name"):
        settings["run_name"] += f"-{method}-{number}"
    FedMEPDRecipe(name=name, preset=started.preset, method=method, settings=settings).export(str(folder))
    print(f"wrote {folder / name}")


def claimed(starts: "list[StartedWith]", workspace: Path, arguments: argparse.Namespace) -> "list[SimulatorRun]":
    """Gives each run a folder of its own, or the one of its name that is there; nothing starts yet.

    Raises:
        FedMEPDError: the named run was started with something else, or a folder cannot be used.
    """
    from fedmepd.flare.simulator_folder import require_no_blank
    from fedmepd.flare.simulator_runs import note_series

    require_no_blank(workspace)
    runs = [claim(started, workspace, arguments, several=len(starts) > 1) for started in starts]
    if len(runs) > 1:
        note_series(runs)
    return runs


def claim(started: "StartedWith", workspace: Path, arguments: argparse.Namespace, several: bool) -> "SimulatorRun":
    """Gives a run its folder, see :func:`claimed`."""
    from dataclasses import replace

    from fedmepd.flare.simulator_runs import SimulatorRun, new_run
    from fedmepd.job_settings import make_settings

    settings = make_settings(started.preset, started.settings)
    own = f"{settings.method}-{settings.seed}"
    name = f"{arguments.run_name}-{own}" if arguments.run_name and several else arguments.run_name
    if not name or (arguments.fresh and SimulatorRun(workspace / name).exists):
        return new_run(workspace, name or f"{settings.task}-{own}", started)
    one, started = SimulatorRun(workspace / name), replace(started, settings=started.settings | {"run_name": name})
    if one.claim(started):
        return one
    if not one.exists:
        raise FedMEPDError(f"{one.folder} holds something else: choose another --run-name or --workspace")
    if different := one.started_with().differences(started):
        raise FedMEPDError(
            f"{one.folder} was started with something else ({'; '.join(different[:5])}): "
            f"`{resume_command(one, arguments)}` goes on with it as it was started; --fresh starts another one, in a "
            "folder of its own"
        )
    return one


def go_on(one: "SimulatorRun", arguments: argparse.Namespace, interrupted: threading.Event, left: int) -> int:
    """Runs a run from its beginning, or from its last finished round on; returns the exit status.

    Args:
        one: the run.
        arguments: of the command.
        interrupted: set by Ctrl-C.
        left: how many runs the command has still to start after this one.
    """
    from nvflare.recipe.sim_env import SimEnv

    from fedmepd.flare.console import quiet_log_config
    from fedmepd.flare.recipe import FedMEPDRecipe
    from fedmepd.flare.simulator_folder import alone_in
    from fedmepd.storage import write_json

    started = one.started_with()
    before = one.progress()
    if before and before.finished:
        print(f"{one.folder} is finished: `fedmepd results {one.folder}`; --fresh starts another run")
        return 0
    recipe = FedMEPDRecipe(
        name=one.name, preset=started.preset, method=started.settings["method"], settings=started.settings
    )
    if started.data is not None:
        os.environ["FEDMEPD_DATA"] = started.data
    log_config = one.kept / "log_config.json"
    environment = SimEnv(
        clients=started.sites,
        num_threads=arguments.threads,
        workspace_root=str(one.folder.parent),
        log_config=str(log_config),
    )
    try:
        with alone_in(one.folder):
            write_json(log_config, quiet_log_config())
            one.set_aside()
            one.become_latest()
            recipe.run(environment)
    except (KeyboardInterrupt, RuntimeError):
        # FLARE answers an interrupt itself: it ends all processes of the simulator, and says that it has failed.
        done = one.progress() or before
        rounds = f"after round {done.round} of {done.rounds}" if done else "before the end of round 0"
        then = f", and then starts {left} more" if left else ""
        how = f"`{resume_command(one, arguments)}` goes on{then}"
        if interrupted.is_set() and done and done.finished:
            more = f"; `{resume_command(one, arguments)}` starts {left} more" if left else ""
            print(f"job.py: interrupted when {one.folder} was finished: everything is stopped{more}", file=sys.stderr)
            return INTERRUPTED
        if interrupted.is_set():
            print(f"job.py: interrupted {rounds}: everything is stopped; {how}", file=sys.stderr)
            return INTERRUPTED
        log = one.folder / "server" / "log.txt"
        print(f"job.py: the run failed {rounds}: {log} says why; when that is mended, {how}", file=sys.stderr)
        return FAILED
    print(f"results: {one.results}")
    print(f"models: {one.folder / '*' / 'simulate_job' / 'fedmepd'}")
    return 0


def resume_command(one: "SimulatorRun", arguments: argparse.Namespace) -> str:
    """Returns the command that goes on with a run."""
    workspace = "" if arguments.workspace == DEFAULT_WORKSPACE else f" --workspace {quote(arguments.workspace)}"
    return f"python job.py --resume --run-name {one.name}{workspace}"


def require_phantoms_of(settings: "Settings") -> None:
    """Refuses a job without data that makes no phantoms.

    Raises:
        FedMEPDError: it trains on cases, or there are no phantoms of its task.
    """
    from fedmepd.data.phantom_heads import require_phantoms
    from fedmepd.tasks.find import find_task

    if not settings.data.phantom:
        raise FedMEPDError("there are no cases: name their folder with --data, or say --set data.phantom=true")
    require_phantoms(find_task(settings.task))


def site_names(data: str | None, count: int | None, settings: dict) -> list[str]:
    """Returns the names of the sites: those of a folder with data, or site-1, site-2 and so on.

    Args:
        data: folder of a federation's data; None for phantoms.
        count: of sites; None: all of the folder, or 8.
        settings: of the job, whose task it is.

    Raises:
        FedMEPDError: the folder cannot be read, holds no sites, no cases for fusion training, fewer sites, or images
            that belong to none, or two sites have files in common.
    """
    from fedmepd.config import FUSION_SITE
    from fedmepd.data.federation_folder import look_into
    from fedmepd.data.same_patients import check_sites
    from fedmepd.errors import DataError
    from fedmepd.tasks.find import task_of

    if data is None:
        return [f"site-{number}" for number in range(1, (count or DEFAULT_SITES) + 1)]
    expected = f"expected a folder with one sub-folder for each site, and one named {FUSION_SITE}"
    folder = Path(data).absolute()
    if not folder.is_dir():
        raise DataError(f"{data} is {'a file' if folder.exists() else 'not there'}: {expected}{like_path(folder)}")
    task = task_of(settings)
    found = look_into(task, folder)
    fusion_site = settings.get("fusion", {}).get("site")
    found.require_sites(fusion=not fusion_site)
    named = list(found.sites)
    if not fusion_site and not (folder / FUSION_SITE).is_dir():
        raise DataError(
            f"{data} has no sub-folder {FUSION_SITE} with the cases for fusion training: add one, or name the site "
            f"that has them with --fusion-site{like_path(folder / FUSION_SITE)}"
        )
    if count is not None and count > len(named):
        raise DataError(f"--sites {count}: {data} holds {counted(len(named), 'site')}, {', '.join(named)}")
    if text := found.without_images():
        warn(text)
    for text in check_sites(task, folder, named[:count]):
        warn(text)
    return named[:count]


def build_parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    parser = Parser(
        prog="job.py",
        description="Trains a federation of sites with different MRI modalities on this machine.",
        epilog="An option that is not given keeps the preset's value. Exit status 1: a run failed; 130: interrupted.",
    )
    parser.add_argument(
        "--method",
        nargs="+",
        default=["fedmepd"],
        choices=methods.names(),
        metavar="NAME",
        help="one method, or several, which run one after the other; `fedmepd methods` lists them; default: fedmepd",
    )
    parser.add_argument(
        "--preset", default="phantom", choices=["phantom", "paper"], help="settings to start from; default: phantom"
    )
    parser.add_argument("--rounds", type=int, help="rounds of training")
    parser.add_argument(
        "--sites", type=positive, help="number of sites; default: all that the folder of --data holds, or 8"
    )
    parser.add_argument(
        "--fusion-site",
        metavar="NAME",
        help="the site that has the fusion data and trains on them, besides its own cases; default: the server",
    )
    parser.add_argument("--threads", type=positive, help="sites that train at the same time; default: all")
    parser.add_argument("--width", type=int, help="channels of the network at full resolution")
    parser.add_argument("--crop", type=int, help="side of the training crops in voxels")
    seeds = parser.add_mutually_exclusive_group()
    seeds.add_argument("--seed", type=int, help="seed of every random number")
    seeds.add_argument("--seeds", type=int, nargs="+", metavar="SEED", help="a run with each of these seeds")
    add_set_option(parser)
    parser.add_argument(
        "--data",
        metavar="FOLDER",
        help="folder of real cases, with one sub-folder per site, whose name is the site's, and one named fusion; not "
        "together with --export, --resume or --set data.phantom=...",
    )
    parser.add_argument("--device", help="auto, cpu, cuda, cuda:1, ...; default: auto")
    parser.add_argument(
        "--cross-site",
        action="store_true",
        help="at the end, also test every model on every site's test cases, if the sites agree",
    )
    parser.add_argument(
        "--run-name",
        metavar="NAME",
        help="name of the run and of its folder; the same command again goes on with the run if it was stopped; "
        "default: task, method, seed and a number, such as brats-fedmepd-0-1",
    )
    again = parser.add_mutually_exclusive_group()
    again.add_argument(
        "--resume",
        action="store_true",
        help="go on with the run that was started last, or with --run-name, as it was started; together with "
        f"{_listed(_WITH_RESUME[1:])} alone",
    )
    again.add_argument(
        "--fresh", action="store_true", help="start another run, in a folder of its own, although --run-name is there"
    )
    parser.add_argument(
        "--workspace",
        default=DEFAULT_WORKSPACE,
        metavar="FOLDER",
        help="folder for all runs: each has a sub-folder, which no other run uses, and `latest` leads to the one that "
        "was started last; default: workspace",
    )
    parser.add_argument(
        "--export",
        metavar="FOLDER",
        help=f"write the job there instead of running it; not together with {_listed(_NOT_IN_A_JOB)}, which no job "
        "can hold",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
