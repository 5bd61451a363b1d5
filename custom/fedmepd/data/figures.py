"""Pictures of phantom cases for the documentation: ``python -m fedmepd.data.figures docs/images/phantoms.png``, and
``python -m fedmepd.data.figures docs/images/hospitals.png --cohort hospitals``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from fedmepd.config import FUSION_SITE
from fedmepd.data.phantom import phantom_sites
from fedmepd.data.phantom_cohorts import COHORTS, MILD, Cohort
from fedmepd.data.phantom_heads import phantom_task
from fedmepd.storage import write_atomically

# The slices that cut through the ventricles, from below.
_VENTRICLES = slice(24, 29)


def _sites(cohort: Cohort) -> tuple[str, ...]:
    """The sites that the picture of a cohort shows."""
    if cohort is MILD:
        return ("site-1", "site-2", "site-5", "site-8")
    return (FUSION_SITE, *(name for name in phantom_sites() if name != FUSION_SITE))


def draw_phantoms(file: Path, cohort: Cohort = MILD, sites: tuple[str, ...] | None = None, seed: int = 0) -> None:
    """Draws one phantom case of each site: its modalities and the label.

    Of the mild cohort, all four modalities are drawn, and the last site's case has no enhancing tumour. Of the others,
    those that the site has.

    Args:
        file: the PNG to write.
        cohort: that the cases are of.
        sites: the sites, one row each; None: the cohort's own choice.
        seed: the cohort's seed.
    """
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Patch

    task, sites = phantom_task(), sites or _sites(cohort)
    figure, axes = pyplot.subplots(len(sites), 5, figsize=(8, 1.72 * len(sites) + 0.35), facecolor="black")
    for row, site in zip(axes, sites, strict=True):
        without = cohort.without_enhancement(site, seed)
        last_is_without = cohort is MILD and site == sites[-1]
        names = [name for name in cohort.case_names(site) if (name in without) == last_is_without]
        cases = [cohort.make(site, name, seed) for name in names[:6]]
        images, label = max(cases, key=lambda case: _core(case[1]).max())
        height = _VENTRICLES.start + int(np.argmax(_core(label)))
        shown = task.modalities if cohort is MILD else phantom_sites()[site]
        for place, modality in zip(row, task.modalities, strict=False):
            if modality not in shown:
                place.set_facecolor("black")
                continue
            slice_ = images[modality][:, :, height].T
            place.imshow(slice_, cmap="gray", vmin=0, vmax=np.percentile(slice_[slice_ > 0], 99.5))
        brain = images[task.modalities[0]][:, :, height].T > 0
        row[-1].imshow(np.where(brain, 0.25, 0.0), cmap="gray", vmin=0, vmax=1)
        tumour = np.searchsorted(task.label_of_class(task.default_convention), label[:, :, height].T)
        colours, classes = ListedColormap(task.class_colours), len(task.class_colours)
        row[-1].imshow(np.ma.masked_equal(tumour, 0), cmap=colours, vmin=1, vmax=classes)
        row[0].set_ylabel(site, color="white")
    for place, title in zip(axes[0], (*task.modalities, "label"), strict=True):
        place.set_title(title, color="white", fontsize=10)
    for place in axes.flat:
        place.set(xticks=[], yticks=[], xlim=(3.5, 43.5), ylim=(45.5, 1.5))
        place.spines[:].set_visible(False)
    colours = zip(task.class_colours, task.classes[1:], strict=True)
    legend = [Patch(color=colour, label=name) for colour, name in colours]
    figure.legend(handles=legend, loc="lower right", ncols=3, frameon=False, labelcolor="white", fontsize=8)
    figure.tight_layout(pad=0.3, rect=(0, 0.04, 1, 1))
    # Without matplotlib's version in it, the same picture gives the same file.
    write_atomically(Path(file), lambda opened: figure.savefig(opened, dpi=110, metadata={"Software": None}))
    pyplot.close(figure)


def _core(label: np.ndarray) -> np.ndarray:
    """Voxels of tumour core in each slice at the height of the ventricles."""
    return ((label == 1) | (label == 4))[:, :, _VENTRICLES].sum(axis=(0, 1))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Draw a few phantom cases.")
    parser.add_argument("file", type=Path, help="PNG file to write")
    parser.add_argument("--cohort", choices=list(COHORTS), default=MILD.name)
    options = parser.parse_args()
    draw_phantoms(options.file, COHORTS[options.cohort])
