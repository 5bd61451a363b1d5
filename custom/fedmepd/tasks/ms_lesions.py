"""Lesions of multiple sclerosis, whose images often lie on different grids: thick slices beside isotropic volumes."""

from __future__ import annotations

from fedmepd.tasks.brats import DERIVED_WORDS, DOUBTS, MOST_BRAIN_ML, VARIANT_WORDS
from fedmepd.tasks.labels import Convention
from fedmepd.tasks.rules import LesionRules
from fedmepd.tasks.task import Task

TASK = Task(
    name="ms_lesions",
    title="Segmentation of multiple sclerosis lesions",
    subject="multiple sclerosis lesions in brain MRI",
    modalities=("FLAIR", "T1ce", "T1", "T2"),
    words={
        "FLAIR": ("flair", "fla", "t2flair", "3dflair"),
        "T1ce": ("t1ce", "t1c", "t1gd", "t1post", "3dt1gado"),
        "T1": ("t1", "t1n", "t1w", "3dt1", "mprage"),
        "T2": ("t2", "t2w"),
    },
    # Consensus: of several experts, as in the data of MSSEG.
    label_words=("seg", "segmentation", "label", "lesions", "consensus"),
    classes=("background", "lesion"),
    conventions={"lesions": Convention("lesion masks", {0: 0, 1: 1})},
    default_convention="lesions",
    regions={"lesions": (1,)},
    colours={"lesions": "#e0533c"},
    class_colours=("#e0533c",),
    doubts=DOUBTS,
    derived_words=DERIVED_WORDS,
    variant_words=VARIANT_WORDS,
    label_neighbours=("mask", "lesion", "dseg", "roi", "annotation", "gt", "manual"),
    other_label_words=("brain", "brainmask", "tissue", "skull", "ventricles"),
    class_words={"lesion": ("lesion", "lesions", "ms", "wmh")},
    images="co-registered NIfTI images of the head without the skull, on any grids",
    body="brain",
    most_foreground_ml=MOST_BRAIN_ML,
    voxel_mm=(1.0, 1.0, 1.0),
    resampled=True,
    # Lesions are small and lie close together; three voxels are the usual smallest size.
    lesions=LesionRules(dilation=1, smallest_voxels=3),
    limits=("It knows other diseases with lesions in the white matter only if the training cases contained them.",),
)
