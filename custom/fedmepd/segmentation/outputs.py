"""Where the files of a segmented case go, and writing them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fedmepd.data.own_grid import save_image
from fedmepd.data.volumes import is_nifti
from fedmepd.errors import FedMEPDError
from fedmepd.segmentation.segmenter import Segmentation
from fedmepd.storage import write_text
from fedmepd.tasks.task import Task
from fedmepd.text_table import spreadsheet_cell

VOLUMES = "volumes.csv"


@dataclass(frozen=True)
class CaseFiles:
    """The files that one case gets.

    Args:
        name: the case's.
        segmentation: NIfTI.
        overlay: PNG, or None.
        probabilities: NIfTI of each region; empty if they are not requested.
    """

    name: str
    segmentation: Path
    overlay: Path | None = None
    probabilities: dict[str, Path] = field(default_factory=dict)

    def write(self, segmentation: Segmentation, convention: str, notes: Sequence[str] = ()) -> None:
        """Writes them, the segmentation last: if it exists, the other files are complete.

        Args:
            segmentation: of the case.
            convention: meaning of the values to write.
            notes: what whoever looks at the picture has to know.

        Raises:
            FedMEPDError: a file cannot be written, or the case's image cannot be read any more.
        """
        if self.overlay is not None:
            from fedmepd.segmentation.overlay import draw_overlay

            draw_overlay(
                segmentation.case.task,
                self.overlay,
                segmentation.case.modalities,
                segmentation.images,
                segmentation.classes,
                segmentation.spacing,
                notes=notes,
                probabilities={region: segmentation.probability(region) for region in self.probabilities},
            )
        for region, file in self.probabilities.items():
            save_image(file, segmentation.probability_image(region))
        save_image(self.segmentation, segmentation.image(convention))


def files_beside(task: Task, out: Path, *, overlay: bool, probabilities: bool) -> tuple[CaseFiles, Path]:
    """Returns the files of a single case, named after its segmentation, and that of its volumes.

    Raises:
        FedMEPDError: see :func:`require_nifti`.
    """
    require_nifti(out)
    ending = ".nii.gz" if out.name.lower().endswith(".gz") else ".nii"
    stem = out.name[: -len(ending)]
    files = CaseFiles(
        stem,
        out,
        out.with_name(f"{stem}_overlay.png") if overlay else None,
        {region: out.with_name(f"{stem}_probability_{region}{ending}") for region in task.regions if probabilities},
    )
    return files, out.with_name(f"{stem}_{VOLUMES}")


def require_nifti(out: Path) -> None:
    """Raises :class:`~fedmepd.errors.FedMEPDError` if ``out`` is no name of a NIfTI file."""
    if not is_nifti(out):
        raise FedMEPDError(f"--out {out}: expected a file that ends in .nii.gz or .nii")


def files_in(task: Task, folder: Path, name: str, *, overlay: bool, probabilities: bool) -> CaseFiles:
    """Returns the files of a case of a folder."""
    return CaseFiles(
        name,
        folder / f"{name}.nii.gz",
        folder / "overlays" / f"{name}.png" if overlay else None,
        {region: folder / "probabilities" / f"{name}_{region}.nii.gz" for region in task.regions if probabilities},
    )


class VolumeTable:
    """The regions' volumes of all cases in a CSV file, complete after each case.

    Args:
        task: whose regions it has.
        file: the CSV.
    """

    def __init__(self, task: Task, file: Path):
        self._columns = ("case", "modalities", *(f"{region}_ml" for region in task.regions))
        self._file = file
        self._rows: dict[str, dict[str, str]] = {}

    def keep(self, names: Iterable[str]) -> None:
        """Keeps the file's rows of these cases; without this call the table starts empty.

        Raises:
            FedMEPDError: the file is there, but is no table of this task: its rows would be lost.
        """
        try:
            with open(self._file, newline="", encoding="utf-8") as opened:
                reader = csv.DictReader(opened, strict=True)
                rows = {row["case"]: row for row in reader} if tuple(reader.fieldnames or ()) == self._columns else None
        except FileNotFoundError:
            return
        except (OSError, ValueError, csv.Error):
            rows = None
        if rows is None:
            raise FedMEPDError(
                f"{self._file} is no table of this model's task (expected the columns {', '.join(self._columns)}): "
                "choose another --out, or move the file away"
            )
        cells = {name: spreadsheet_cell(name) for name in names}
        self._rows |= {name: rows[cell] for name, cell in cells.items() if cell in rows}

    def add(self, segmentation: Segmentation) -> None:
        """Adds a case and writes the file.

        Raises:
            FedMEPDError: the file cannot be written.
        """
        case = segmentation.case
        volumes = [f"{segmentation.millilitres[region]:.3f}" for region in case.task.regions]
        cells = spreadsheet_cell(case.name), " ".join(case.modalities), *volumes
        self._rows[case.name] = dict(zip(self._columns, cells, strict=True))
        text = io.StringIO()
        writer = csv.DictWriter(text, self._columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self._rows[name] for name in sorted(self._rows))
        write_text(self._file, text.getvalue())
