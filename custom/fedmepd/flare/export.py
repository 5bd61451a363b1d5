"""Jobs that carry the package: for servers and sites that have not installed it."""

from __future__ import annotations

import shutil
from pathlib import Path

import fedmepd
from fedmepd.errors import FedMEPDError

CUSTOM_README = """\
FLARE loads classes other than its own only for a job with a folder `custom`: this one. The package itself is installed
on the server and at every site (`pip install -r requirements.txt`); `fedmepd job export` writes a job that carries it.
"""


def export_job(job_folder: Path, out: Path) -> Path:
    """Copies a job, with this package in its ``custom`` folders.

    A site runs such a job only if its policy allows foreign code ("byoc" in its ``authorization.json``).

    Args:
        job_folder: a job such as ``jobs/fedmepd_brats``.
        out: the new job folder; must not exist yet.

    Returns:
        ``out``.

    Raises:
        FedMEPDError: ``job_folder`` is no job, or ``out`` exists.
    """
    job_folder, out = Path(job_folder), Path(out)
    if not (job_folder / "meta.json").is_file():
        raise FedMEPDError(f"{job_folder} is no job: expected a folder with meta.json, such as jobs/fedmepd_brats")
    if out.exists():
        raise FedMEPDError(f"{out} exists already: remove it, or name another folder for the exported job")
    package = Path(fedmepd.__file__).parent
    partial = out.with_name(out.name + ".part")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(job_folder, partial)
        for config in sorted(partial.glob("*/config")):
            shutil.copytree(
                package, config.parent / "custom" / package.name, ignore=shutil.ignore_patterns("__pycache__")
            )
        partial.rename(out)
    except (OSError, shutil.Error) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise FedMEPDError(f"cannot write {out}: {error}") from error
    return out
