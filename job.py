"""Runs the default job through FLARE's recipe API, on this machine: ``python job.py --help``."""

import argparse
import os
import sys
from pathlib import Path

from fedmepd import methods
from fedmepd.cli.terminal import INTERRUPTED, interruptible, positive

DEFAULT_SITES = 8


def main() -> int:
    arguments = build_parser().parse_args()
    with interruptible() as interrupted:
        try:
            return run(arguments)
        except KeyboardInterrupt:
            pass
        except RuntimeError as error:
            # FLARE answers an interrupt itself: it ends all processes of the simulator, and says that it has failed.
            if not interrupted.is_set():
                print(f"job.py: {error}", file=sys.stderr)
                return 1
    print("job.py: interrupted: everything is stopped", file=sys.stderr)
    return INTERRUPTED


def run(arguments: argparse.Namespace) -> int:
    """Runs or exports the job; returns the exit status.

    Raises:
        RuntimeError: the simulator failed.
    """
    # These belong to a machine, not to the job; all processes of the simulator inherit them.
    for variable, value in (("FEDMEPD_DATA", arguments.data), ("FEDMEPD_DEVICE", arguments.device)):
        if value is not None:
            os.environ[variable] = os.path.abspath(value) if variable == "FEDMEPD_DATA" else value
    # Importing nvflare.recipe takes --export out of sys.argv, so the command line is read before.
    sys.argv[1:] = []
    from nvflare.recipe.sim_env import SimEnv

    from fedmepd.config import Settings
    from fedmepd.errors import FedMEPDError
    from fedmepd.flare.recipe import FedMEPDRecipe
    from fedmepd.flare.simulator_folder import reserved

    try:
        recipe = FedMEPDRecipe(
            name=f"{arguments.method}_brats",
            preset=arguments.preset,
            method=arguments.method,
            rounds=arguments.rounds,
            seed=arguments.seed,
            width=arguments.width,
            crop=arguments.crop,
            run_name=arguments.run_name,
            fusion_site=arguments.fusion_site,
            settings=own_settings(arguments),
        )
    except FedMEPDError as error:
        print(f"job.py: {error}", file=sys.stderr)
        return 2
    if arguments.export:
        recipe.export(arguments.export)
        print(f"wrote {os.path.join(arguments.export, recipe.name)}")
        return 0
    try:
        sites = site_names(arguments.data, arguments.sites)
    except FedMEPDError as error:
        print(f"job.py: {error}", file=sys.stderr)
        return 2
    if arguments.fusion_site and arguments.fusion_site not in sites:
        print(f"job.py: --fusion-site {arguments.fusion_site}: expected one of {', '.join(sites)}", file=sys.stderr)
        return 2
    workspace = os.path.abspath(arguments.workspace)
    environment = SimEnv(clients=sites, num_threads=arguments.threads, workspace_root=workspace)
    # An environment variable of FLARE's may name another one.
    folder = Path(environment.workspace_root).absolute() / recipe.name
    try:
        with reserved(folder, Settings.make(arguments.preset, recipe.settings)):
            recipe.run(environment)
    except FedMEPDError as error:
        print(f"job.py: {error}", file=sys.stderr)
        return 2
    print(f"results: {folder / 'server' / 'simulate_job' / 'results'}")
    return 0


def own_settings(arguments: argparse.Namespace) -> dict:
    """Returns the settings that options without an argument of the recipe ask for."""
    settings = {}
    if arguments.cross_site:
        settings["evaluation"] = {"cross_site": True}
    if arguments.cohort == "hospitals":
        settings["data"] = {"phantom": "hospitals"}
    return settings


def site_names(data: str | None, count: int | None) -> list[str]:
    """Returns the names of the sites: those of a folder with data, or site-1, site-2 and so on.

    Args:
        data: folder of a federation's data; None for phantoms.
        count: of sites; None: all of the folder, or 8.

    Raises:
        FedMEPDError: the folder cannot be read, or holds fewer sites.
    """
    from fedmepd.data.ownership import federation_sites
    from fedmepd.errors import DataError
    from fedmepd.tasks.find import DEFAULT, find_task

    named = [] if data is None else federation_sites(find_task(DEFAULT), Path(data).absolute())
    if not named:
        return [f"site-{number}" for number in range(1, (count or DEFAULT_SITES) + 1)]
    if count is not None and count > len(named):
        raise DataError(f"--sites {count}: {data} holds {len(named)} sites, {', '.join(named)}")
    return named[:count]


def build_parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="job.py",
        description="Trains a federation of sites with different MRI modalities on this machine.",
        epilog="An option that is not given keeps the preset's value. Exit status 1: the run failed; 130: interrupted.",
    )
    parser.add_argument(
        "--method", default="fedmepd", choices=methods.names(), help="see `fedmepd methods`; default: fedmepd"
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
    parser.add_argument("--seed", type=int, help="seed of every random number")
    parser.add_argument(
        "--data",
        metavar="FOLDER",
        help="folder of real cases, with one sub-folder per site, whose name is the site's, and one named fusion",
    )
    parser.add_argument(
        "--cohort",
        choices=["mild", "hospitals"],
        default="mild",
        help="phantoms, where there is no data folder: mild, whose sites are much alike, or hospitals, whose sites "
        "differ as hospitals do; default: mild",
    )
    parser.add_argument("--device", help="auto, cpu, cuda, cuda:1, ...; default: auto")
    parser.add_argument(
        "--cross-site",
        action="store_true",
        help="at the end, also test every model on every site's test cases, if the sites agree",
    )
    parser.add_argument(
        "--run-name", metavar="NAME", help="name of the run; starting it again with the same name continues it"
    )
    parser.add_argument(
        "--workspace",
        default="workspace",
        metavar="FOLDER",
        help="folder for everything that is written, with a sub-folder per method; one that holds another run is "
        "refused; default: workspace",
    )
    parser.add_argument("--export", metavar="FOLDER", help="write the job there instead of running it")
    return parser


if __name__ == "__main__":
    sys.exit(main())
