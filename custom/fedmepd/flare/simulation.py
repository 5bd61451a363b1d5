"""A job in FLARE's simulator, by its settings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nvflare.recipe.sim_env import SimEnv

from fedmepd.config import Settings
from fedmepd.flare.recipe import FedMEPDRecipe
from fedmepd.flare.simulator_folder import reserved


def simulate(settings: Settings, sites: Sequence[str], workspace: Path) -> Path:
    """Runs a job in the simulator, a process for the server and one for every site.

    Args:
        settings: of the job. With a ``run_name`` it goes on where it was stopped.
        sites: the sites' names.
        workspace: folder for everything that is written.

    Returns:
        the folder with the results.

    Raises:
        FedMEPDError: the workspace holds another run, or a run in progress.
        RuntimeError: the job failed.
    """
    recipe = FedMEPDRecipe(
        name=f"{settings.method}_job", preset="paper", method=settings.method, settings=settings.model_dump(mode="json")
    )
    environment = SimEnv(clients=list(sites), num_threads=len(sites), workspace_root=str(workspace))
    folder = Path(environment.workspace_root).absolute() / recipe.name
    with reserved(folder, settings):
        recipe.run(environment)
    return folder / "server" / "simulate_job" / "results"
