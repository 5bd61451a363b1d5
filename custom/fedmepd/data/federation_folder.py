"""The folder of a federation whose sites are on one machine: which sub-folders are sites, and what the others are."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path

from fedmepd.config import FUSION_SITE
from fedmepd.data.findings import Finding, error, warning
from fedmepd.data.folders import children_of, data_set_mark, images_in, is_group, other_spelling, site_folders
from fedmepd.data.formats import other_format
from fedmepd.data.layouts import find_dataset
from fedmepd.data.links import describe_nothing
from fedmepd.data.volumes import is_nifti
from fedmepd.errors import DataError
from fedmepd.tasks.task import Task
from fedmepd.text_table import counted, natural_order

_MOST_SHOWN = 3

# What to do with images that belong to no site.
MOVE_THEM = "Move them into the folder of a site, or out of this folder"

_NO_IMAGE = "no image in it"

_A_GROUP = (
    "its name is that of a group of cases: if it is a site, rename it, or make a data set of every site with `fedmepd "
    "data init`"
)

_EXPECTED = (
    f"expected a folder with one sub-folder for each site, and one named {FUSION_SITE}. `fedmepd data split` makes "
    "such a folder of a data set"
)


@dataclass(frozen=True)
class FederationFolder:
    """What lies in a folder that is, or may be, a federation's.

    Args:
        folder: the folder.
        sites: names of the sub-folders that are sites, in their natural order, without the fusion site's.
        mark: what says that the folder is a single data set; empty: nothing does.
        strays: by name, what holds images and is no site, with the reason.
        empty: by name, sub-folders without images, with the reason.
    """

    folder: Path
    sites: tuple[str, ...] = ()
    mark: str = ""
    strays: dict[str, str] = field(default_factory=dict)
    empty: dict[str, str] = field(default_factory=dict)

    def require_sites(self, fusion: bool) -> None:
        """Does nothing if there are sites, and no images that belong to none.

        Args:
            fusion: whether a sub-folder ``fusion`` has to hold cases if there is one.

        Raises:
            DataError: the message says what was found instead.
        """
        if self.mark:
            raise DataError(
                f"{self.folder} holds no sites: {self.mark} says that it is one data set; {_EXPECTED}",
                public="a data folder is one data set, and holds no sites",
            )
        others = self.strays | self.empty
        if not self.sites:
            found = f", but {_some(others)}" if others else ""
            raise DataError(f"{self.folder} holds no sites{found}: {_EXPECTED}", public="a data folder holds no sites")
        if self.strays:
            raise DataError(
                f"{self.describe_strays()}. {MOVE_THEM}",
                public="a data folder holds sites, and images that belong to none of them",
            )
        if fusion and FUSION_SITE in self.empty:
            raise DataError(
                f"{self.folder / FUSION_SITE}, for the cases for fusion training, is no folder of cases: "
                f"{self.empty[FUSION_SITE]}. Put them there, or name the site that has them as the fusion "
                "site",
                public="the folder for the cases for fusion training is empty",
            )

    def without_images(self) -> str:
        """Returns a sentence about the sub-folders that take no part; empty if there are none."""
        left = {name: why for name, why in self.empty.items() if name != FUSION_SITE}
        return f"the run goes on without what is no site in {self.folder}: {_some(left, most=None)}" if left else ""

    def describe_strays(self) -> str:
        """Returns what belongs to no site, beside the sites that there are, as the beginning of a sentence."""
        if not self.sites:
            return f"{self.folder} holds no sites, but {_some(self.strays)}"
        return (
            f"{self.folder} holds {counted(len(self.sites), 'site')} ({', '.join(self.sites)}), and images that belong "
            f"to none: {_some(self.strays)}"
        )

    def findings(self) -> list[Finding]:
        """Returns an error for images that belong to no site, and a warning for each sub-folder without images."""
        return [
            *(
                error("images beside the sites of a federation", f"{self.folder / name} is no site: {why}")
                for name, why in self.strays.items()
            ),
            *(
                warning("sub-folder of a federation that is no site", f"{self.folder / name} is no site: {why}")
                for name, why in self.empty.items()
            ),
        ]


def look_into(task: Task, folder: Path) -> FederationFolder:
    """Says which sub-folders of a folder are sites.

    If some have a manifest, these are the sites; else all that hold cases. A link to a site's folder counts as the
    folder: :mod:`fedmepd.data.same_patients` finds what two sites have in common.

    Args:
        task: that the cases are of.
        folder: of the federation.

    Raises:
        DataError: it cannot be read.
    """
    if mark := data_set_mark(folder):
        return FederationFolder(folder, mark=mark)
    with_manifest = {place.name for place in site_folders(folder) if place.name.lower() != FUSION_SITE}
    sites, strays, empty = [], {}, {}
    for child in sorted(children_of(folder), key=lambda place: natural_order(place.name)):
        if child.name.startswith("."):
            continue
        if why := describe_nothing(child):
            empty[child.name] = why
        elif is_nifti(child):
            strays[child.name] = "an image in no site's folder"
        elif why := other_spelling(task, child, FUSION_SITE):
            strays[child.name] = why
        elif child.name in with_manifest:
            sites.append(child.name)
        elif not child.is_dir():
            continue
        elif why := _no_site(task, child, with_manifest):
            (empty if why.startswith(_NO_IMAGE) else strays)[child.name] = why
        elif child.name != FUSION_SITE:
            sites.append(child.name)
    return FederationFolder(folder, tuple(sites), "", strays, empty)


def _no_site(task: Task, folder: Path, with_manifest: set[str]) -> str:
    """Why a sub-folder is no site, nor the fusion site's; empty if it is one."""
    # An atlas beside the cases is none of a case's images: the site passes it over with a warning.
    images = images_in(task, folder)
    # A list says of each image whose it is.
    if images and folder.name != FUSION_SITE and not data_set_mark(folder):
        return f"images such as {images[0].name} lie directly in it, as in the folder of one case"
    if find_dataset(task, folder, follow_links=True).cases:
        if folder.name == FUSION_SITE:
            return ""
        if with_manifest:
            other = min(with_manifest, key=natural_order)
            return f"it has no manifest, which {other} has: `fedmepd data init` writes one"
        return _A_GROUP if is_group(folder.name) else ""
    image = next((file for file in folder.rglob("*") if is_nifti(file) or other_format(file)), None)
    if image is None:
        nothing = {place.name: why for place in children_of(folder) if (why := describe_nothing(place))}
        return f"{_NO_IMAGE}{f', but {_some(nothing)}' if nothing else ''}"
    told = other_format(image)
    return f"images such as {image.relative_to(folder)}: {told}" if told else f"no case found around {image.name}"


def _some(reasons: dict[str, str], most: int | None = _MOST_SHOWN) -> str:
    """A few names with their reasons."""
    shown = [f"{name} ({why})" for name, why in islice(reasons.items(), most)]
    left = len(reasons) - len(shown)
    return "; ".join(chain(shown, [f"and {left} more"] if left else []))
