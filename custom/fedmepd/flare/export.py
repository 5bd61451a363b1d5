"""Jobs for other federations: with the package in them, or with no code at all."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import fedmepd
from fedmepd.errors import FedMEPDError
from fedmepd.storage import read_json, write_json

CUSTOM_README = """\
FLARE loads only its own classes unless a job has a folder named `custom`, so this folder must exist. The package itself
is installed on the server and at every site (`pip install -r requirements.txt`). `fedmepd job export` writes a job that
carries the package with it.
"""


def export_job(job_folder: Path, out: Path, *, with_code: bool = True, all_sites: bool = False) -> Path:
    """Copies a job, with this package in its ``custom`` folders or without such folders.

    A site runs a job with code only if its policy allows foreign code ("byoc" in its ``authorization.json``), and one
    without only if its list of classes holds the installed package (:mod:`fedmepd.flare.kits`).

    Args:
        job_folder: a job such as ``jobs/fedmepd_brats``.
        out: the new job folder; must not exist yet.
        with_code: whether it carries the package.
        all_sites: deploy it to every connected site instead of those that ``job_folder`` names.

    Returns:
        ``out``.

    Raises:
        FedMEPDError: ``job_folder`` is no job, or ``out`` exists.
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
        partial.rename(out)
    except (OSError, shutil.Error) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise FedMEPDError(f"cannot write {out}: {error}") from error
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
        )
    return meta


def deployed_everywhere(meta: dict[str, Any]) -> dict[str, Any]:
    """Returns the ``meta.json`` of the same job for every connected site."""
    return meta | {"deploy_map": {app: ["@ALL"] for app in meta["deploy_map"]}}
