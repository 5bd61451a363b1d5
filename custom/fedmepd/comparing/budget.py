"""What every method has cost, and what it needs of the sites."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any

from fedmepd import methods
from fedmepd.comparing.run import Run, Work


def budget(runs: Sequence[Run]) -> dict[str, Any]:
    """Returns the budget of a method, as means over its runs; None where a run does not say it.

    Returns:
        ``rounds``; ``site_steps`` and ``site_passes`` (of an average site), ``fusion_steps``, ``fusion_passes``,
        ``steps`` (of all together); ``bytes_up`` and ``bytes_down`` (of all sites, from and to them); ``seconds`` (of
        the whole run); ``peak_mib`` (the largest of any process); ``networks`` (the most that a site keeps);
        ``trials`` (configurations that were tried); ``shared``, ``fusion`` and ``phantoms_only``: what the method
        says of itself.
    """
    known = [run for run in runs if all(entry.work for entry in run.entries().values())]
    every = len(known) == len(runs)

    def mean(value: Callable[[list[Work], Work], float]) -> float | None:
        return fmean(value([site.work for site in run.sites], run.server.work) for run in known) if every else None

    # Sites that share a process do not know their own.
    peaks = [entry.work.peak_mib for run in known for entry in run.entries().values() if entry.work.peak_mib]
    described = methods.find(runs[0].method) if runs[0].method in methods.names() else None
    return {
        "rounds": fmean(run.rounds for run in runs),
        "site_steps": mean(lambda sites, fusion: fmean(work.steps for work in sites)),
        "site_passes": mean(lambda sites, fusion: fmean(work.passes for work in sites)),
        "fusion_steps": mean(lambda sites, fusion: fusion.steps),
        "fusion_passes": mean(lambda sites, fusion: fusion.passes),
        "steps": mean(lambda sites, fusion: sum(work.steps for work in (*sites, fusion))),
        "bytes_up": mean(lambda sites, fusion: sum(work.bytes_up for work in (*sites, fusion))),
        "bytes_down": mean(lambda sites, fusion: sum(work.bytes_down for work in (*sites, fusion))),
        "seconds": fmean(run.seconds for run in runs),
        "peak_mib": max(peaks) if every and peaks else None,
        "networks": max(site.work.networks for run in known for site in run.sites) if every else None,
        "trials": max(run.trials for run in runs),
        "shared": described.shared if described else None,
        "fusion": described.fusion if described else None,
        "phantoms_only": described.phantoms_only if described else None,
    }
