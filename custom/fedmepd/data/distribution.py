"""The distribution of the cases of one data set to the sites of a federation."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from fedmepd.config import FUSION_SITE
from fedmepd.data.cases import Case
from fedmepd.data.volumes import SUFFIXES
from fedmepd.errors import DataError, FedMEPDError, SettingsError, cannot_read, explain
from fedmepd.seeds import derive_seed
from fedmepd.tasks.task import Task
from fedmepd.text_table import counted, natural_order

# Cases of the fusion site and of sites 1 to 8 in the paper's protocol for BraTS 2018, of 285 in all.
_BRATS_2018 = {FUSION_SITE: 88, **{f"site-{n}": size for n, size in enumerate((20, 22, 20, 22, 21, 22, 34, 35), 1)}}

_BRATS_2020_CASES = 369

# Tumours are sorted into this many classes of size, each with the same number of cases.
_SIZES = 4

# Names of the published lists: server.csv, c1.csv to c8.csv.
_LIST_OF_SITE = {FUSION_SITE: "server", **{f"site-{n}": f"c{n}" for n in range(1, 9)}}


_SITE_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"


@dataclass(frozen=True)
class SitePlan:
    """A site to be made.

    Args:
        name: name of the site and of its folder.
        modalities: the modalities that it gets of its cases.
        cases: number of cases that it gets.
    """

    name: str
    modalities: tuple[str, ...]
    cases: int


def protocol_plan(task: Task, protocol: str) -> list[SitePlan]:
    """Returns the paper's sites: its sizes for BraTS 2018, and the same proportions of BraTS 2020's 369 cases.

    Raises:
        SettingsError: the task has no published protocol.
    """
    sites = protocol_sites(task)
    sizes = _BRATS_2018
    if protocol == "brats2020":
        sizes = _proportional({name: float(size) for name, size in _BRATS_2018.items()}, _BRATS_2020_CASES)
    return [SitePlan(name, sites[name], size) for name, size in sizes.items()]


def protocol_sites(task: Task) -> dict[str, tuple[str, ...]]:
    """Returns the sites of a task's published protocol with the modalities of each; the fusion site has all.

    Raises:
        SettingsError: the task has none.
    """
    if not task.protocol:
        raise SettingsError(f"task {task.name} has no published protocol: say the sites in a file with --sites")
    sites = {f"site-{number}": subset for number, subset in enumerate(task.protocol, 1)}
    return sites | {FUSION_SITE: task.modalities}


def protocol_names() -> list[str]:
    """Returns the names of the sites of the published protocol, without the fusion site."""
    return [name for name in _LIST_OF_SITE if name != FUSION_SITE]


def _proportional(shares: Mapping[str, float], count: int) -> dict[str, int]:
    """Whole numbers that sum to ``count``, by largest remainder."""
    total = sum(shares.values())
    quotas = {name: round(share / total * count, 9) for name, share in shares.items()}
    sizes = {name: math.floor(quota) for name, quota in quotas.items()}
    by_remainder = sorted(quotas, key=lambda name: sizes[name] - quotas[name])
    for name in by_remainder[: count - sum(sizes.values())]:
        sizes[name] += 1
    return sizes


class _Site(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str = Field(pattern=f"^{_SITE_NAME}$")
    modalities: list[str] = Field(min_length=1)
    share: float | None = Field(None, gt=0, le=1)
    cases: int | None = Field(None, ge=1)

    @field_validator("modalities")
    @classmethod
    def _known(cls, value: list[str], info: ValidationInfo) -> list[str]:
        try:
            return list(info.context.subset(value))
        except FedMEPDError as error:
            raise ValueError(str(error)) from error

    @model_validator(mode="after")
    def _one_size(self) -> _Site:
        if (self.share is None) == (self.cases is None):
            raise ValueError("expected either share or cases")
        return self


class _Sites(BaseModel):
    model_config = ConfigDict(extra="forbid")

    sites: list[_Site] = Field(min_length=1)


def read_plan(task: Task, file: Path, count: int) -> list[SitePlan]:
    """Reads the sites of a federation from YAML.

    Args:
        task: of the cases.
        file: ``sites:`` with a list of ``name``, ``modalities`` and either ``cases`` or ``share`` (of all cases).
        count: number of cases in the data set.

    Raises:
        SettingsError: the file cannot be read, a key or modality is unknown, or there are too few cases.
    """
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        sites = _Sites.model_validate(content, context=task).sites
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(cannot_read(file, error, "a YAML file with `sites`, a list of them", "YAML")) from error
    except ValidationError as error:
        raise SettingsError(explain(error, str(file), _Sites)) from error
    names = [site.name for site in sites]
    if len(set(names)) < len(names):
        raise SettingsError(f"{file}: two sites of one name: expected each name once")
    shares = {site.name: site.share for site in sites if site.share is not None}
    if sum(shares.values()) > 1 + 1e-9:
        raise SettingsError(f"{file}: the shares sum to {sum(shares.values()):.3g}: expected at most 1")
    # Cases that no share covers are left over; the rounding respects that.
    rest = max(0.0, 1 - sum(shares.values()))
    sizes = _proportional({**shares, "": rest}, count) if shares else {}
    plan = [SitePlan(site.name, tuple(site.modalities), site.cases or sizes[site.name]) for site in sites]
    empty = next((site.name for site in plan if not site.cases), None)
    if empty is not None:
        raise SettingsError(f"{file}: site {empty} would get no case of {count}: raise its share")
    return plan


def deal(
    cases: Sequence[Case], tumour_ml: Mapping[str, float], plan: Sequence[SitePlan], seed: int
) -> dict[str, list[Case]]:
    """Deals cases to sites, all of one patient to the same site.

    Patients are sorted by institution and by the size of their tumour, with ties in random order. They are then dealt
    so that at every point of this sequence each site has received its share. So every site gets its share of every
    institution and size.

    Args:
        cases: labelled cases.
        tumour_ml: volume of each case's tumour, by case name.
        plan: the sites.
        seed: of the random order.

    Returns:
        each site's cases, sorted by name; cases beyond the plan's number are not used.

    Raises:
        DataError: there are too few cases, or too few with the modalities of a site.
    """
    wanted = sum(site.cases for site in plan)
    if len(cases) < wanted:
        raise DataError(
            f"found {counted(len(cases), 'labelled case')}, expected at least {wanted}: take the whole data set, or "
            "say the sizes in a file with --sites"
        )
    patients: dict[str, list[Case]] = {}
    for case in cases:
        patients.setdefault(case.patient, []).append(case)
    edges = np.quantile([tumour_ml[case.name] for case in cases], np.arange(1, _SIZES) / _SIZES)

    def order(patient: str) -> tuple:
        of_patient = patients[patient]
        size = int(np.searchsorted(edges, np.mean([tumour_ml[case.name] for case in of_patient])))
        # Patients with several examinations first, while every site still has room for them.
        chance = derive_seed(seed, "deal", patient)
        return -len(of_patient), of_patient[0].institution or "", size, chance, patient

    rest = len(cases) - wanted
    room = {site.name: site.cases for site in plan} | ({"": rest} if rest else {})
    quota, given, dealt = dict(room), dict.fromkeys(room, 0), 0
    found: dict[str, list[Case]] = {site.name: [] for site in plan}
    needs = {site.name: set(site.modalities) for site in plan}
    for patient in sorted(patients, key=order):
        of_patient = patients[patient]
        dealt += len(of_patient)
        there = set.intersection(*(set(case.images) for case in of_patient))
        fit = [name for name in room if room[name] >= len(of_patient) and (not name or needs[name] <= there)]
        if not fit:
            continue
        behind = {name: quota[name] * dealt / len(cases) - given[name] for name in fit}
        chosen = max(fit, key=lambda name: (behind[name], derive_seed(seed, "deal to", name, patient)))
        room[chosen] -= len(of_patient)
        given[chosen] += len(of_patient)
        if chosen:
            found[chosen] += of_patient
    short = next((site for site in plan if len(found[site.name]) < site.cases), None)
    if short is not None:
        raise DataError(
            f"site {short.name} gets {len(found[short.name])} of {counted(short.cases, 'case')}: not enough patients "
            f"are left that have {', '.join(short.modalities)}"
        )
    return {name: sorted(of_site, key=lambda case: case.name) for name, of_site in found.items()}


def read_site_lists(task: Task, folder: Path, cases: Sequence[Case]) -> tuple[list[SitePlan], dict[str, list[Case]]]:
    """Reads the sites of published lists: server.csv and c1.csv to c8.csv, with one case name per line.

    Returns:
        the sites, with the modalities of the paper's protocol, and each one's cases.

    Raises:
        DataError: a list is missing, names a case that is not there, or one that another list has too.
    """
    sites = protocol_sites(task)
    by_name = {case.name.lower(): case for case in cases}
    plan: list[SitePlan] = []
    found: dict[str, list[Case]] = {}
    owner: dict[str, str] = {}
    for site, list_name in _LIST_OF_SITE.items():
        file = folder / f"{list_name}.csv"
        names = _names(file)
        unknown = [name for name in names if name.lower() not in by_name]
        if unknown:
            raise DataError(
                f"{file}: the data set has no labelled case for {len(unknown)} of its {counted(len(names), 'name')}, "
                f"such as {', '.join(unknown[:3])}: expected the names of its case folders"
            )
        chosen = [by_name[name] for name in dict.fromkeys(name.lower() for name in names)]
        for case in chosen:
            if owner.setdefault(case.patient, site) != site:
                other = _LIST_OF_SITE[owner[case.patient]]
                raise DataError(f"{file}: the patient of {case.name} is in {other}.csv too: expected disjoint lists")
            missing = [name for name in sites[site] if name not in case.images]
            if missing:
                raise DataError(f"{file}: {case.name} has no {', '.join(missing)}, which {site} is to have")
        plan.append(SitePlan(site, sites[site], len(chosen)))
        found[site] = sorted(chosen, key=lambda case: case.name)
    return plan, found


_PARTITION_COLUMNS = ("partition_id", "subject_id")


def read_partition(task: Task, file: Path, cases: Sequence[Case]) -> tuple[list[SitePlan], dict[str, list[Case]]]:
    """Reads a partition of FeTS: a CSV file with the columns Partition_ID and Subject_ID. Site 1 is called ``site-1``.

    Returns:
        the sites, each with the modalities that all of its cases have, and each one's cases.

    Raises:
        DataError: the file cannot be read, names a case that is not there, or a patient at two sites.
    """
    try:
        with open(file, newline="", encoding="utf-8-sig") as opened:
            rows = [{str(key).strip().lower(): value for key, value in row.items()} for row in csv.DictReader(opened)]
    except (OSError, ValueError, csv.Error) as error:
        what = "a partition with the columns Partition_ID and Subject_ID"
        raise DataError(cannot_read(file, error, what, "CSV")) from error
    if not rows or any(column not in rows[0] for column in _PARTITION_COLUMNS):
        raise DataError(f"{file}: expected the columns Partition_ID and Subject_ID")
    for number, row in enumerate(rows, 1):
        if not all(row[column] and row[column].strip() for column in _PARTITION_COLUMNS):
            which = "Partition_ID" if (row["subject_id"] or "").strip() else "Subject_ID"
            raise DataError(f"{file}: row {number} has no {which}: complete or remove it")
    by_name = {case.name.lower(): case for case in cases}
    unknown = [row["subject_id"] for row in rows if _case_name(row["subject_id"].strip()).lower() not in by_name]
    if unknown:
        raise DataError(
            f"{file}: the data set has no labelled case for {len(unknown)} of its {counted(len(rows), 'subject')}, "
            f"such as {', '.join(unknown[:3])}: expected the names of its case folders"
        )
    found: dict[str, list[Case]] = {}
    owner: dict[str, str] = {}
    for row in rows:
        number, case = row["partition_id"].strip(), by_name[_case_name(row["subject_id"].strip()).lower()]
        site = f"site-{number}" if number.isdigit() else number
        if not re.fullmatch(_SITE_NAME, site):
            raise DataError(f"{file}: Partition_ID {number!r} can be no name of a site")
        if owner.setdefault(case.patient, site) != site:
            raise DataError(f"{file}: patient {case.patient} is at {owner[case.patient]} and at {site}")
        if case not in found.setdefault(site, []):
            found[site].append(case)
    plan = []
    for site in sorted(found, key=natural_order):
        there = set.intersection(*(set(case.images) for case in found[site]))
        if not there:
            raise DataError(f"{file}: the cases of {site} have no modality in common")
        plan.append(SitePlan(site, task.subset(there), len(found[site])))
        found[site].sort(key=lambda case: case.name)
    return plan, found


def _names(file: Path) -> list[str]:
    what = f"the lists {', '.join(f'{name}.csv' for name in _LIST_OF_SITE.values())}"
    # Their names are alike: no other one is meant.
    if not file.exists():
        raise DataError(f"{file} does not exist: expected {what}")
    try:
        with open(file, newline="", encoding="utf-8-sig") as opened:
            cells = [row[0].strip() for row in csv.reader(opened) if row and row[0].strip()]
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(cannot_read(file, error, what, "CSV")) from error
    if cells and cells[0].lower() in ("case", "name", "id", "subject"):
        cells = cells[1:]
    if not cells:
        raise DataError(f"{file} is empty: expected a case's name a line")
    return [_case_name(cell) for cell in cells]


def _case_name(cell: str) -> str:
    """Returns a case's name from an entry of a list, which may be a name, a path or a file name."""
    name = cell.replace("\\", "/").rstrip("/").rpartition("/")[2]
    for suffix in (*sorted(SUFFIXES, key=len, reverse=True), ".npy", ".npz", ".h5"):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name
