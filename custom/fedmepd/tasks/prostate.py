"""The prostate in T2 and diffusion: thick slices, images on different grids, and a body instead of air around it."""

from __future__ import annotations

from fedmepd.tasks.labels import Convention
from fedmepd.tasks.rules import LesionRules
from fedmepd.tasks.task import Decathlon, Task

TASK = Task(
    name="prostate",
    title="Segmentation of the prostate",
    subject="the prostate in MRI",
    modalities=("T2", "ADC"),
    words={"T2": ("t2", "t2w", "t2ax"), "ADC": ("adc", "adcmap")},
    label_words=("seg", "segmentation", "label"),
    classes=("background", "prostate"),
    conventions={
        "prostate": Convention("masks of the gland", {0: 0, 1: 1}),
        # Peripheral zone and transition zone.
        "msd": Convention("Decathlon", {0: 0, 1: 1, 2: 1}),
    },
    default_convention="prostate",
    regions={"prostate": (1,)},
    colours={"prostate": "#e8c33c"},
    class_colours=("#e8c33c",),
    derived_words=("lesion", "roi", "mask", "subtraction", "dwi", "dce"),
    label_neighbours=("mask", "dseg", "roi", "gland", "gt", "manual"),
    other_label_words=("lesion", "lesions", "tumor", "tumour", "bladder", "rectum"),
    class_words={"prostate": ("prostate", "gland", "pz", "tz")},
    decathlon=Decathlon("Decathlon (MSD) Task05", r"prostate_\d{2}", ("T2", "ADC"), "msd"),
    images="NIfTI images of one examination, on any grids, not masked",
    foreground="whole",
    intensity="percentiles",
    voxel_mm=(0.6, 0.6, 3.0),
    resampled=True,
    # There is one prostate: parts of it are no lesions of their own.
    lesions=LesionRules(dilation=1, smallest_voxels=50),
    limits=("It was trained on the whole gland and does not tell its zones or tumours in it apart.",),
)
