"""A list of cases: CSV or JSON, one row per case, one column per modality."""

from __future__ import annotations

import codecs
import csv
import io
import os
import re
from pathlib import Path, PurePath
from typing import Any
from unicodedata import normalize

from fedmepd.data.cases import LABEL, Case
from fedmepd.data.containment import outside
from fedmepd.data.findings import Finding, error
from fedmepd.data.names import kinds_of, read_case_name, read_label_name
from fedmepd.errors import DataError, has_controls
from fedmepd.storage import read_json
from fedmepd.tasks.task import Task

LAYOUT = "a list of cases"

_NAME_COLUMNS = ("case", "name", "id", "subject")
_PATIENT_COLUMNS = ("patient", "patientid", "patientname", "patientno")

# What programs write into a cell that is empty.
_EMPTY = ("nan", "none", "null", "na", "n/a")


def _expected(task: Task) -> str:
    return (
        f"expected columns case, {task.label_words[0]} and some of {', '.join(task.modalities)}; patient where one has "
        "several cases"
    )


def read_case_list(task: Task, file: Path, follow_links: bool) -> list[Case]:
    """Reads a list.

    Args:
        task: that the cases are of.
        file: CSV with a header line, separated by commas, semicolons or tabs, in UTF-8 or UTF-16, or JSON: an array of
            objects, or an object with such an array as ``cases``. Paths are relative to the list's folder and may not
            leave it. An empty cell means that the case does not have that file.
        follow_links: whether links may lead out of that folder.

    Raises:
        DataError: the list cannot be read, or its columns are not clear.
    """
    rows = _read_json(task, file) if file.suffix.lower() == ".json" else _read_csv(file)
    columns = _columns(task, file, rows)
    return [_case(task, file, number, row, columns, follow_links) for number, row in enumerate(rows, 1)]


def _read_csv(file: Path) -> list[dict[str, Any]]:
    try:
        lines = list(io.StringIO(_decoded(file), newline=""))
    except (OSError, ValueError) as problem:
        raise _unreadable(file, problem) from problem
    # Some spreadsheets write the separator above the header.
    told = re.fullmatch(r"sep=(.)\s*", lines[0], re.IGNORECASE) if lines else None
    if told:
        lines = lines[1:]
    # In many countries, spreadsheets use semicolons as separators.
    separator = told[1] if told else max(",;\t", key=lines[0].count) if lines else ","
    try:
        head, *rows = csv.reader(lines, delimiter=separator)
    except (ValueError, csv.Error) as problem:
        raise _unreadable(file, problem) from problem
    twice = next((column for column in head if column.strip() and head.count(column) > 1), None)
    if twice is not None:
        raise DataError(f"{file}: column {twice!r} is there twice: remove or rename one", _PUBLIC)
    for number, row in enumerate(rows, 1):
        if any(cell.strip() for cell in row[len(head) :]):
            text = f"{file}, row {number} has more cells than the header: put cells that hold {separator!r} into quotes"
            raise DataError(text, _PUBLIC)
    # Spreadsheets write empty rows at the end.
    return [dict(zip(head, row, strict=False)) for row in rows if any(cell.strip() for cell in row)]


def _decoded(file: Path) -> str:
    content = file.read_bytes()
    utf_16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return content.decode("utf-16" if utf_16 else "utf-8-sig")


def _read_json(task: Task, file: Path) -> list[dict[str, Any]]:
    content = read_json(file, "a list of cases", DataError, public=_PUBLIC, kinds=(dict, list))
    rows = content.get("cases") if isinstance(content, dict) else content
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{file}: expected an array of objects, one a case; {_expected(task)}", _PUBLIC)
    return rows


_PUBLIC = "the list of the site's cases cannot be used"


def _unreadable(file: Path, problem: Exception) -> DataError:
    way = "; save it as CSV UTF-8" if isinstance(problem, UnicodeDecodeError) else ""
    return DataError(f"{file} cannot be read as a list of cases: {problem}{way}", _PUBLIC)


def _columns(task: Task, file: Path, rows: list[dict[str, Any]]) -> dict[str, str]:
    """Returns the column of each kind, of the name, and of the patient if there is one."""
    found: dict[str, str] = {}
    for column in dict.fromkeys(key for row in rows for key in row if isinstance(key, str)):
        plain = column.strip().lower()
        of_patient = re.sub("[^a-z]", "", plain) in _PATIENT_COLUMNS
        kinds = ["name"] if plain in _NAME_COLUMNS else ["patient"] if of_patient else kinds_of(task, plain)
        if len(kinds) > 1:
            raise DataError(
                f"{file}: column {column!r} may be {' or '.join(kinds)}: rename it; {_expected(task)}", _PUBLIC
            )
        for kind in kinds:
            if kind in found:
                raise DataError(f"{file}: columns {found[kind]!r} and {column!r} are both {kind}: remove one", _PUBLIC)
            found[kind] = column
    if "name" not in found or not found.keys() - {"name", "patient", LABEL}:
        missing = "of a modality" if "name" in found else "case"
        raise DataError(f"{file} has no column {missing}: {_expected(task)}", _PUBLIC)
    return found


def _case(
    task: Task, file: Path, number: int, row: dict[str, Any], columns: dict[str, str], follow_links: bool
) -> Case:
    values = {kind: _cell(row.get(column)) for kind, column in columns.items()}
    name, patient = values.pop("name"), values.pop("patient", "")
    if not name or len(PurePath(name).parts) != 1 or name in (".", "..") or has_controls(name):
        raise DataError(f"{file}, row {number}: {name!r} is no name of a case", _PUBLIC)
    if has_controls(patient):
        raise DataError(f"{file}, row {number}: {patient!r} is no name of a patient", _PUBLIC)
    findings: list[Finding] = []
    files: dict[str, Path] = {}
    for kind, value in values.items():
        if not value or value.lower() in _EMPTY:
            continue
        path = _path(file.parent, value)
        problem = (
            error("file name that is no path", f"{file}, row {number}: {value!r} is no path")
            if "\0" in value
            else outside(path, file.parent, follow_links)
        )
        if problem is not None:
            findings.append(problem)
        else:
            files[kind] = path
    told = read_case_name(task, name)
    patient = "" if patient.lower() in _EMPTY else patient
    label = files.pop(LABEL, None)
    of_label = read_label_name(task, name, label)
    return Case(
        name,
        files,
        label,
        patient=patient or told.patient,
        institution=told.institution,
        convention=of_label.convention,
        layout=LAYOUT,
        findings=tuple(findings),
        label_doubt=of_label.label_doubt,
        label_choices=of_label.label_choices,
        disease=of_label.disease,
        task=task,
    )


def _cell(value: Any) -> str:
    return "" if value is None else str(value).strip()


def _path(folder: Path, value: str) -> Path:
    """The file that a cell names; where there is none of that name, also as other systems write it."""
    ways = [value, value.replace("\\", "/")]
    ways += [normalize(form, way) for way in ways for form in ("NFC", "NFD")]
    return next((folder / way for way in ways if "\0" not in way and os.path.lexists(folder / way)), folder / value)
