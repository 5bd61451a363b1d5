"""The whole federation in one process, without FLARE: for tests, and to try settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fedmepd.config import FUSION_SITE, Settings
from fedmepd.data.site import open_site_data
from fedmepd.errors import UpdateRefused
from fedmepd.federation.cross_site import SERVER, network_of
from fedmepd.federation.exchange import Update
from fedmepd.federation.server import FederationServer
from fedmepd.federation.site import FederationSite
from fedmepd.site_settings import SiteSettings


def run_in_process(
    settings: Settings,
    site_settings: SiteSettings,
    folder: Path,
    sites: Sequence[str],
    log: Callable[[str], None] = lambda line: None,
    watch: Callable[[int, dict[str, float]], None] = lambda round_number, figures: None,
    on_the_way: Callable[[str, Update], Update] = lambda site, update: update,
) -> dict[str, Any]:
    """Trains and tests a federation, one site after the other.

    Args:
        settings: of the job.
        site_settings: of this machine; all sites read from its data folder.
        folder: a sub-folder each for the server and the sites, and ``results``.
        sites: the sites' names.
        log: takes lines about the progress.
        watch: called with every round's figures.
        on_the_way: what becomes of a site's update before it reaches the server.

    Returns:
        the results.
    """
    folder = Path(folder)
    device = site_settings.torch_device()

    def never() -> bool:
        return False

    members = {
        name: FederationSite(
            name,
            settings,
            open_site_data(name, settings, site_settings),
            folder / name,
            device,
            log,
            site_settings.cross_site,
        )
        for name in sites
    }
    server = FederationServer(
        settings,
        open_site_data(FUSION_SITE, settings, site_settings),
        folder / "server",
        folder / "results",
        device,
        log,
    )
    server.restore()
    for site in members.values():
        server.register(site.profile())
    server.start(never)
    while server.round < settings.rounds:
        server.begin_round()
        for name, site in members.items():
            update = site.train(server.payload(name), never)
            try:
                server.accept(name, on_the_way(name, update))
            except UpdateRefused as error:
                log(str(error))
        figures = server.finish_round(never)
        log(f"round {server.round}/{settings.rounds}")
        watch(server.round, figures)
    for name, site in members.items():
        server.accept_test(name, site.test(server.test_payload(name), never))
    if settings.evaluation.cross_site and not server.finished:
        _test_across_sites(server, members, settings, never)
    return server.finish(never)


def _test_across_sites(
    server: FederationServer, members: dict[str, FederationSite], settings: Settings, abort: Callable[[], bool]
) -> None:
    matrix = server.begin_cross_site()
    for model in matrix.models():
        copy = server.global_copy() if model == SERVER else members[model].give_model()
        for name in matrix.sites_to_ask(model):
            matrix.accept(model, name, members[name].test_model(copy, abort))
        server.test_model(model, network_of(copy, settings), abort)
