"""Jobs for other federations: with the package in them, or with no code at all."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fedmepd
from fedmepd.closest import did_you_mean, like_path
from fedmepd.config import merge
from fedmepd.errors import FedMEPDError, remedy
from fedmepd.flare.tracking import add_tracking
from fedmepd.job_settings import make_settings
from fedmepd.storage import read_json, write_json

CUSTOM_README = """\
FLARE loads only its own classes unless a job has a folder named `custom`, so this folder must exist. The package itself
is installed on the server and at every site (`pip install -r requirements.txt`). `fedmepd job export` writes a job that
carries the package with it.
"""


def export_job(
    job_folder: Path,
    out: Path,
    *,
    with_code: bool = True,
    all_sites: bool = False,
    fusion_site: str = "",
    tracking: str = "",
    tracking_uri: str = "",
) -> Path:
    """Copies a job, with this package in its ``custom`` folders or without such folders.

    A site runs a job with code only if its policy allows foreign code ("byoc" in its ``authorization.json``), and one
    without only if its list of classes holds the installed package (:mod:`fedmepd.flare.kits`).

    Args:
        job_folder: a job such as ``jobs/fedmepd_brats``.
        out: the new job folder; must not exist yet.
        with_code: whether it carries the package.
        all_sites: deploy it to every connected site instead of those that ``job_folder`` names.
        fusion_site: the site that is to be the fusion site; empty: what ``job_folder`` says.
        tracking, tracking_uri: see :func:`fedmepd.flare.tracking.add_tracking`; empty: TensorBoard alone.

    Returns:
        ``out``.

    Raises:
        FedMEPDError: ``job_folder`` is no job, ``out`` exists, or the job cannot have that fusion site.
    """
    job_folder, out = Path(job_folder), Path(out)
    meta = read_meta(job_folder)
    if out.exists():
        raise FedMEPDError(f"{out} exists already: remove it, or name another folder for the exported job")
    package = Path(fedmepd.__file__).parent
    partial = out.with_name(out.name + ".part")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(job_folder, partial)
        for config in sorted(partial.glob("*/config")):
            custom = config.parent / "custom"
            if with_code:
                shutil.copytree(package, custom / package.name, ignore=shutil.ignore_patterns("__pycache__"))
            elif custom.is_dir():
                shutil.rmtree(custom)
        if all_sites:
            write_json(partial / "meta.json", deployed_everywhere(meta))
        if fusion_site:
            set_fusion_site(partial, fusion_site)
        if tracking:
            add_tracking(partial, tracking, tracking_uri)
        partial.rename(out)
    except OSError as error:
        raise FedMEPDError(f"cannot write {out}: {error}; {remedy(error)}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return out


def read_meta(job_folder: Path) -> dict[str, Any]:
    """Returns a job's ``meta.json``, with the sites that every app is deployed to.

    Raises:
        FedMEPDError: the folder is no job.
    """
    file = job_folder / "meta.json"
    places = None
    if file.is_file():
        meta = read_json(file, "a job's description")
        places = meta.get("deploy_map")
    if not isinstance(places, dict) or not all(isinstance(sites, list) for sites in places.values()):
        raise FedMEPDError(
            f"{job_folder} is no job: expected a folder with meta.json and its deploy_map, such as jobs/fedmepd_brats"
            f"{like_path(job_folder)}"
        )
    return meta


def fusion_site_of(job_folder: Path) -> str:
    """Returns the site that a job names as its fusion site; empty: the server, or the job is none of this package.

    Raises:
        FedMEPDError: the job's configuration cannot be read.
    """
    fusion = [settings.get("fusion") or {} for settings in _settings_of(job_folder)]
    return next((section["site"] for section in fusion if section.get("site")), "")


def run_name_of(job_folder: Path) -> str:
    """Returns the name that a job gives to its run; empty: none, or the job is none of this package.

    Raises:
        FedMEPDError: the job's configuration cannot be read.
    """
    return next((settings["run_name"] for settings in _settings_of(job_folder) if settings.get("run_name")), "")


def _settings_of(job_folder: Path) -> list[dict[str, Any]]:
    return [arguments.get("settings") or {} for _, _, arguments in _controllers(job_folder)]


def set_fusion_site(job_folder: Path, site: str) -> None:
    """Makes a site the fusion site of a job, in the job's own folder.

    Raises:
        FedMEPDError: the job is none of this package, is not deployed to the site, or the name can be none of a site.
    """
    named = {name for places in read_meta(job_folder)["deploy_map"].values() for name in places}
    if site not in named and "@ALL" not in named:
        raise FedMEPDError(
            f"{site} cannot be the fusion site: the job is for {', '.join(sorted(named))}, and `fedmepd job export "
            f"--all-sites` deploys it to every site{did_you_mean(site, named)}"
        )
    change_settings(job_folder, {"fusion": {"site": site}})


def change_settings(job_folder: Path, changes: dict[str, Any], *, write: bool = True) -> None:
    """Changes the settings of a job, in the job's own folder.

    Args:
        job_folder: the job.
        changes: nested like the settings themselves.
        write: whether to write them, besides checking them.

    Raises:
        FedMEPDError: the job is none of this package, or it cannot have these settings.
    """
    controllers = list(_controllers(job_folder))
    if not controllers:
        raise FedMEPDError(f"{job_folder} is no job of FedMEPD: expected a folder such as jobs/fedmepd_brats")
    for file, content, arguments in controllers:
        arguments["settings"] = merge(arguments.get("settings") or {}, changes)
        make_settings(arguments.get("preset", "paper"), arguments["settings"])
        if write:
            write_json(file, content)


def _controllers(job_folder: Path) -> Iterator[tuple[Path, dict[str, Any], dict[str, Any]]]:
    """Gives the job's files with a controller of ours: file, its content, and in it the controller's arguments."""
    for file in sorted(job_folder.glob("*/config/config_fed_server.json")):
        content = read_json(file, "a job's configuration")
        try:
            for workflow in content["workflows"]:
                arguments = workflow.setdefault("args", {})
                if workflow["path"].startswith("fedmepd.") or "settings" in arguments:
                    yield file, content, arguments
        except (KeyError, TypeError, AttributeError) as error:
            raise FedMEPDError(f"{file} cannot be read as a job's configuration: {error}") from error


def deployed_everywhere(meta: dict[str, Any]) -> dict[str, Any]:
    """Returns the ``meta.json`` of the same job for every connected site."""
    return meta | {"deploy_map": {app: ["@ALL"] for app in meta["deploy_map"]}}
