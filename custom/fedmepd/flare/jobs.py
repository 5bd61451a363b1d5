"""The jobs of the folder ``jobs``, one per method, written from the recipe: ``python -m fedmepd.flare.jobs jobs``."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from fedmepd import methods
from fedmepd.config import FUSION_SITE
from fedmepd.data.distribution import protocol_sites
from fedmepd.errors import FedMEPDError
from fedmepd.flare.recipe import FedMEPDRecipe
from fedmepd.flare.translation import TASKS
from fedmepd.storage import write_json, write_text
from fedmepd.tasks.find import DEFAULT, find_task

RENEW = "python -m fedmepd.flare.jobs jobs"


def write_jobs(out: Path) -> list[Path]:
    """Writes the job ``<method>_brats`` of every method, for the server and the paper's eight sites.

    Existing files of these jobs are replaced. Everything else in the folder stays.

    Args:
        out: folder of the jobs.

    Returns:
        the folder of each job.

    Raises:
        FedMEPDError: a file cannot be written.
    """
    return [_write(method, out) for method in methods.names()]


def _write(method: str, out: Path) -> Path:
    recipe = FedMEPDRecipe(name=f"{method}_brats", method=method)
    with tempfile.TemporaryDirectory(prefix="fedmepd-") as temporary:
        recipe.export(temporary)
        exported = Path(temporary) / recipe.name
        for file in sorted(exported.rglob("*")):
            place = out / file.relative_to(temporary)
            if file.suffix == ".json":
                content = json.loads(file.read_text(encoding="utf-8"))
                for filters in (*content.get("task_data_filters", []), *content.get("task_result_filters", [])):
                    # FLARE takes them from a set, in an order that changes from process to process.
                    filters["tasks"].sort(key=TASKS.index)
                if file.name == "meta.json":
                    sites = [name for name in protocol_sites(find_task(DEFAULT)) if name != FUSION_SITE]
                    content["deploy_map"] = {"app": ["server", *sites]}
                write_json(place, content)
            elif file.is_file():
                write_text(place, file.read_text(encoding="utf-8"))
    return out / recipe.name


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the jobs."""
    parser = argparse.ArgumentParser(prog="python -m fedmepd.flare.jobs", description="Writes a job for every method.")
    parser.add_argument("out", type=Path, help="folder of the jobs; existing files of these jobs are replaced")
    out = parser.parse_args(arguments).out
    try:
        written = write_jobs(out)
    except FedMEPDError as error:
        print(f"fedmepd.flare.jobs: {error}", file=sys.stderr)
        return 2
    for folder in written:
        print(f"wrote {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
