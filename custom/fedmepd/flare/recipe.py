"""The job as a FLARE recipe: ``FedMEPDRecipe(...).run(SimEnv(...))``, or PocEnv or ProdEnv."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from pathlib import Path
from typing import Any

from nvflare.job_config.api import FedJob
from nvflare.job_config.defs import FilterType
from nvflare.recipe.spec import Recipe

from fedmepd.errors import SettingsError
from fedmepd.flare.controller import FedMEPDController
from fedmepd.flare.executor import FedMEPDExecutor
from fedmepd.flare.export import CUSTOM_README
from fedmepd.flare.filters import FromWirePrecision, ToWirePrecision
from fedmepd.flare.tensorboard import SiteRunsReceiver
from fedmepd.flare.translation import DATA_TASKS, RESULT_TASKS, TASKS
from fedmepd.job_settings import make_settings

# FLARE's default lets a site sleep two seconds before it asks for its next task.
_TASK_REQUEST_SECONDS = 0.5


class FedMEPDRecipe(Recipe):
    """A FedMEPD federation, or one of the methods it is compared with.

    The server is the fusion site, unless ``fusion_site`` names a site. Every site needs this package installed, or a
    job that carries it (see :mod:`fedmepd.flare.export`).

    Args:
        name: the job's name.
        preset: settings to start from, ``phantom`` or ``paper``.
        method: one of :func:`fedmepd.methods.names`.
        rounds: number of rounds.
        seed: seed of every random number.
        width: channels of the network at full resolution, ``network.width``.
        crop: side of the training crops in voxels, ``training.crop``.
        run_name: name of the run; a job with the same name continues it.
        fusion_site: name of the site that has the fusion data and trains on them, ``fusion.site``.
        settings: any other setting of the method, nested like :class:`fedmepd.config.Settings`.
        min_clients: sites that FLARE needs to start the job.

    None means the preset's value.

    Raises:
        SettingsError: an argument or a setting is unknown, out of bounds or given twice; the message names it.
    """

    def __init__(
        self,
        *,
        name: str = "fedmepd_brats",
        preset: str = "phantom",
        method: str = "fedmepd",
        rounds: int | None = None,
        seed: int | None = None,
        width: int | None = None,
        crop: int | None = None,
        run_name: str | None = None,
        fusion_site: str | None = None,
        settings: dict[str, Any] | None = None,
        min_clients: int = 1,
    ):
        arguments = {
            ("method",): method,
            ("rounds",): rounds,
            ("seed",): seed,
            ("network", "width"): width,
            ("training", "crop"): crop,
            ("run_name",): run_name,
            ("fusion", "site"): fusion_site,
        }
        self.settings = _with_arguments(settings or {}, arguments)
        make_settings(preset, self.settings)
        try:
            job = FedJob(name=name, min_clients=min_clients)
        except (TypeError, ValueError) as error:
            raise SettingsError(f"name = {name!r}, min_clients = {min_clients!r}: {error}") from error
        # Without this FLARE would copy the modules that it can trace, a part of the package, into the job.
        job.set_app_packages(["fedmepd"])
        folder = tempfile.mkdtemp(prefix="fedmepd-")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        readme = Path(folder) / "README.md"
        readme.write_text(CUSTOM_README)

        job.to_server(FedMEPDController(preset=preset, settings=self.settings), id="controller")
        job.to_server(SiteRunsReceiver(events=["analytix_log_stats"]), id="tensorboard")
        job.to_server(ToWirePrecision(), filter_type=FilterType.TASK_DATA, tasks=list(DATA_TASKS))
        job.to_server(FromWirePrecision(), filter_type=FilterType.TASK_RESULT, tasks=list(RESULT_TASKS))
        job.to_server({"server": {"task_request_interval": _TASK_REQUEST_SECONDS}})
        job.to_clients(FedMEPDExecutor(), tasks=list(TASKS))
        job.to_clients(FromWirePrecision(), filter_type=FilterType.TASK_DATA, tasks=list(DATA_TASKS))
        job.to_clients(ToWirePrecision(), filter_type=FilterType.TASK_RESULT, tasks=list(RESULT_TASKS))
        job.add_file_to_clients(str(readme), app_folder_type="custom")
        super().__init__(job)


def _with_arguments(settings: dict[str, Any], arguments: dict[tuple[str, ...], Any]) -> dict[str, Any]:
    merged = {key: dict(value) if isinstance(value, dict) else value for key, value in settings.items()}
    for path, value in arguments.items():
        if value is None:
            continue
        section = merged
        for part in path[:-1]:
            section = section.setdefault(part, {})
        if section.get(path[-1], value) != value:
            raise SettingsError(f"{path[-1]} is given twice: {value!r} as argument, {section[path[-1]]!r} in settings")
        section[path[-1]] = value
    return merged
