"""A federation's sites, made of one data set: a folder each."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fedmepd.data.cases import Case
from fedmepd.data.distribution import SitePlan, deal, read_partition, read_site_lists
from fedmepd.data.inspection import tumour_millilitres
from fedmepd.data.manifest import FILE_NAME, Manifest, load_manifest
from fedmepd.data.site_folder import SiteFolder, plan_site, write_site
from fedmepd.data.source import Source
from fedmepd.data.splits import Shares
from fedmepd.errors import DataError
from fedmepd.storage import write_json
from fedmepd.tasks.task import Task

RECORD = "split.json"


@dataclass(frozen=True)
class MadeSite:
    """A site that a split made.

    Args:
        plan: what was planned.
        manifest: of its data set.
        tumour_ml: volume of each case's tumour.
    """

    plan: SitePlan
    manifest: Manifest
    tumour_ml: list[float]


def split_source(
    task: Task,
    source: Source,
    out: Path,
    *,
    plan: Sequence[SitePlan] | None,
    lists: Path | None,
    partition: Path | None = None,
    copy: bool,
    shares: Shares,
    seed: int,
    cache: Path | None,
    how: Mapping[str, object],
) -> tuple[list[MadeSite], bool]:
    """Makes a federation's sites of one data set, a folder each.

    Args:
        task: of the data set.
        source: the data set.
        out: the folder to write; the same split again changes nothing, another one is refused.
        plan: the sites to deal cases to; None with ``lists`` or ``partition``.
        lists: folder of published lists.
        partition: file of FeTS that says whose each case is.
        copy: copy files instead of linking to them.
        shares: of the patients for training and validation, at every site.
        seed: of the dealing.
        cache: remembers the content of files; None: nothing does.
        how: what to write down of the way it was made.

    Returns:
        the sites, and whether anything was written.

    Raises:
        DataError: there are too few cases, ``out`` holds something else, or cannot be written; nothing is left there.
    """
    inspection = source.inspection
    labelled = [case for case in inspection.cases if case.label is not None]
    facts = {case.name: found for case, found in zip(inspection.cases, inspection.facts, strict=True)}
    volumes = {case.name: tumour_millilitres(case, facts[case.name]) for case in labelled}
    if lists is not None:
        plan, dealt = read_site_lists(task, lists, labelled)
    elif partition is not None:
        plan, dealt = read_partition(task, partition, labelled)
    else:
        dealt = deal(labelled, volumes, plan or [], seed)
    new = not out.exists()
    target = out.with_name(f".{out.name}.{uuid.uuid4().hex}.part") if new else out
    folders, made = [], []
    for site in plan:
        cases = [_reduced(case, site.modalities) for case in dealt[site.name]]
        folder = plan_site(
            task, target / site.name, cases, in_place=False, shares=shares, seed=seed, name=site.name, cache=cache
        )
        folders.append(folder)
        made.append(MadeSite(site, folder.manifest, [volumes[case.name] for case in cases]))
    if not new:
        _check_same(out, folders)
    try:
        changed = [write_site(folder, copy=copy) for folder in folders]
        if new:
            record = {"layout": source.dataset.layout, **how, "sites": {site.name: site.cases for site in plan}}
            write_json(target / RECORD, record)
            os.rename(target, out)
    except OSError as error:
        raise DataError(f"{out} cannot be written: {error.strerror or error}") from error
    finally:
        if new:
            shutil.rmtree(target, ignore_errors=True)
    return made, any(changed)


def _reduced(case: Case, modalities: Sequence[str]) -> Case:
    """The case as a site with these modalities has it."""
    channels = {name: number for name, number in case.channels.items() if name in modalities}
    return replace(case, images={name: case.images[name] for name in modalities}, channels=channels)


def _check_same(out: Path, folders: Sequence[SiteFolder]) -> None:
    there = {path for path in out.iterdir() if (path / FILE_NAME).is_file()} if out.is_dir() else set()
    same = there == {folder.folder for folder in folders}
    if not same or any(load_manifest(folder.folder) != folder.manifest for folder in folders):
        raise DataError(f"{out} is there already and is no such split: remove it, or choose another folder")
