"""How one run is done: in this process, or in FLARE's simulator. Both give the same bits."""

from __future__ import annotations

import os
from pathlib import Path

from fedmepd.config import FUSION_SITE
from fedmepd.evaluation.results import FILE_NAME, HISTORY
from fedmepd.experiments.plan import PlannedRun
from fedmepd.experiments.run_folder import STATE, WORKSPACE
from fedmepd.site_settings import SiteSettings
from fedmepd.storage import write_text
from fedmepd.text_table import counted


def carry_out(run: PlannedRun, folder: Path, machine: SiteSettings) -> None:
    """Does a run, or what is left of it; the results are in its folder afterwards.

    Args:
        run: to do.
        folder: of the run.
        machine: cache and device. Nothing leaves this machine, so the results hold the scores of every case.
    """
    machine = machine.model_copy(update={"data": run.data, "case_scores": "share"})
    (_simulate if run.engine == "simulator" else _in_process)(run, folder, machine)


def _in_process(run: PlannedRun, folder: Path, machine: SiteSettings) -> None:
    from fedmepd.federation.in_process import run_in_process
    from fedmepd.federation.wire import Wire

    wire = Wire(run.settings.aggregation.wire_precision)
    run_in_process(
        run.settings,
        machine,
        folder / STATE,
        run.sites,
        log=_say,
        on_the_way=wire.update,
        on_the_way_down=wire.payload,
        results_folder=folder,
    )


def _say(line: str) -> None:
    print(line, flush=True)


def _simulate(run: PlannedRun, folder: Path, machine: SiteSettings) -> None:
    # The processes of the simulator inherit them.
    os.environ.update(machine.variables())
    from fedmepd.flare.simulation import simulate

    results = simulate(run.settings, run.sites, folder.absolute() / WORKSPACE)
    # results.json last: with it, the run counts as finished.
    for name in (HISTORY, "results.md", FILE_NAME):
        write_text(folder / name, (results / name).read_text(encoding="utf-8"))


def prepare(run: PlannedRun, machine: SiteSettings) -> None:
    """Finds or makes the cases of a run and puts them into the machine's cache, so that no run has to.

    Args:
        run: one of those that share the cases.
        machine: with the cache.
    """
    from fedmepd.data.preparation import PreparedCases
    from fedmepd.data.site import open_fusion_data, open_site_data

    machine = machine.model_copy(update={"data": run.data})
    # How many fusion cases are used differs from run to run; the cases are the same.
    all_cases = run.settings.data.model_copy(update={"fusion_share": 1.0, "fusion_cases": None})
    everything = run.settings.model_copy(update={"data": all_cases})
    for name in (*run.sites, FUSION_SITE):
        data = (
            open_fusion_data(run.settings.fusion.site, everything, machine)
            if name == FUSION_SITE
            else open_site_data(name, everything, machine)
        )
        prepared = PreparedCases([*data.train, *data.validation, *data.test], data.cache, everything.data.clip_percent)
        for place in range(len(prepared)):
            prepared[place]
        print(f"{name}: prepared {counted(len(prepared), 'case')}", flush=True)
