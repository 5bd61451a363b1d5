"""What a server's or a site's process opens when a job's first task needs it: data, state, network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from nvflare.apis.fl_context import FLContext

from fedmepd.config import FUSION_SITE
from fedmepd.federation.exchange import SiteProfile
from fedmepd.flare import folders
from fedmepd.flare.translation import Run

if TYPE_CHECKING:
    from fedmepd.federation.fusion_desk import FusionDesk
    from fedmepd.federation.fusion_site import Fusion
    from fedmepd.federation.server import FederationServer
    from fedmepd.federation.site import FederationSite
    from fedmepd.federation.timing import Timing

Log = Callable[[str], None]


def open_server(
    run: Run, folder: Path, fusion: Fusion | None, timing: Timing, log: Log, fl_ctx: FLContext
) -> FederationServer:
    """Opens the federation's server on its state.

    Args:
        run: the job's.
        folder: of the run's state.
        fusion: the fusion site elsewhere; None: here, with the server's own data.
        timing: runs since the job's start.
        log: takes lines about the progress.
        fl_ctx: of the server.
    """
    from fedmepd.federation.server import FederationServer

    server = FederationServer(
        settings=run.settings,
        fusion=fusion or _fusion_here(run, folder, log, fl_ctx),
        folder=folder,
        results_folder=folders.run_folder(fl_ctx) / "results",
        log=log,
        timing=timing,
    )
    server.restore()
    return server


def _fusion_here(run: Run, folder: Path, log: Log, fl_ctx: FLContext) -> Fusion:
    from fedmepd.data.site import open_copy, open_fusion_data
    from fedmepd.federation.fusion_site import FusionSite
    from fedmepd.site_settings import SiteSettings

    site_settings = SiteSettings.load(folders.local_folder(fl_ctx))
    data = open_fusion_data("", run.settings, site_settings, log)
    open_site = partial(open_copy, settings=run.settings, site_settings=site_settings)
    device = site_settings.torch_device()
    return FusionSite(
        run.settings,
        data,
        folder / FUSION_SITE,
        device,
        log,
        open_site,
        site_settings.case_scores,
        site_settings.privacy,
        folders.privacy_account(fl_ctx, folder / FUSION_SITE),
    )


def kept_fusion(run: Run, folder: Path) -> tuple[SiteProfile, bool] | None:
    """Returns what the state of a run says of its fusion site at a hospital; None for a new run.

    Args:
        run: the job's.
        folder: of the run's state.

    Returns:
        the hospital's profile as fusion site, and whether the run is finished.
    """
    from fedmepd.federation.server_state import ServerState

    content = ServerState(folder, run.settings).load()
    if content is None:
        return None
    profile = SiteProfile.from_json(content["fusion"])
    none = dict.fromkeys(profile.cases, 0)
    hospital = replace(profile, name=run.settings.fusion.site, modalities=(), cases=none, fusion=profile.cases)
    return hospital, content["finished"]


def open_site(run: Run, log: Log, fl_ctx: FLContext) -> tuple[FederationSite, FusionDesk | None]:
    """Opens a site on its state, and the fusion site too where the job has it here.

    Args:
        run: the job's.
        log: takes lines about the progress.
        fl_ctx: of the site.
    """
    from fedmepd.data.site import open_fusion_data, open_site_data
    from fedmepd.federation.fusion_desk import FusionDesk
    from fedmepd.federation.fusion_site import FusionSite
    from fedmepd.federation.site import FederationSite
    from fedmepd.site_settings import SiteSettings

    name, settings = fl_ctx.get_identity_name(), run.settings
    site_settings = SiteSettings.load(folders.local_folder(fl_ctx))
    device = site_settings.torch_device()
    folder = folders.site_folder(fl_ctx, settings, run.identity)
    site = FederationSite(
        name=name,
        settings=settings,
        data=open_site_data(name, settings, site_settings, log),
        folder=folder,
        device=device,
        log=log,
        cross_site=site_settings.cross_site,
        case_scores=site_settings.case_scores,
        demanded=site_settings.privacy,
        account=folders.privacy_account(fl_ctx, folder),
    )
    if settings.fusion.site != name:
        return site, None
    data = open_fusion_data(name, settings, site_settings, log)
    fusion = FusionSite(
        settings,
        data,
        folder / FUSION_SITE,
        device,
        log,
        case_scores=site_settings.case_scores,
        demanded=site_settings.privacy,
        account=folders.privacy_account(fl_ctx, folder / FUSION_SITE),
    )
    return site, FusionDesk(fusion, half_precision=settings.aggregation.wire_precision == "float16")
