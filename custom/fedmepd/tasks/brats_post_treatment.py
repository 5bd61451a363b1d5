"""BraTS 2024: adult glioma after treatment, with the cavity that a resection leaves as a class of its own."""

from __future__ import annotations

from fedmepd.tasks.brats import (
    DERIVED_WORDS,
    DOUBTS,
    FILLER_WORDS,
    LABEL_NEIGHBOURS,
    MOST_BRAIN_ML,
    OTHER_LABEL_WORDS,
    REGION_TITLES,
    REGION_WORDS,
    VARIANT_WORDS,
)
from fedmepd.tasks.labels import Convention
from fedmepd.tasks.task import CaseNames, Task

TASK = Task(
    name="brats_post_treatment",
    title="Segmentation of treated brain tumours",
    subject="diffuse glioma after treatment in brain MRI",
    modalities=("FLAIR", "T1ce", "T1", "T2"),
    words={
        "FLAIR": ("t2f", "flair", "t2flair"),
        "T1ce": ("t1c", "t1ce", "t1gd"),
        "T1": ("t1n", "t1", "t1w"),
        "T2": ("t2w", "t2"),
    },
    label_words=("seg",),
    # Non-enhancing tumour core, surrounding non-enhancing FLAIR hyperintensity, enhancing tissue, resection cavity.
    classes=("background", "NETC", "SNFH", "ET", "RC"),
    conventions={"brats2024": Convention("BraTS from 2024 on", {0: 0, 1: 1, 2: 2, 3: 3, 4: 4}, aliases=("2024",))},
    default_convention="brats2024",
    regions={"ET": (3,), "TC": (1, 3), "WT": (1, 2, 3), "RC": (4,)},
    colours={"ET": "#e0533c", "TC": "#e8c33c", "WT": "#4dab6d", "RC": "#3b6fb6"},
    class_colours=("#e8c33c", "#4dab6d", "#e0533c", "#3b6fb6"),
    # BraTS-GLI-00001-100: challenge, patient, examination.
    case_names=(
        CaseNames("BraTS 2024 or later", r"(?P<patient>brats-gli-\d+)(-\d+)?", "brats2024"),
        # Since 2025 with resection cavities.
        CaseNames("BraTS 2023 or later", r"(?P<patient>brats-met-\d+)(-\d+)?", "brats2024", other_disease="metastases"),
        CaseNames(
            "BraTS 2023 or later",
            r"(?P<patient>brats-[a-z]+(-[a-z]+)*-\d+)(-\d+)?",
            None,
            "labels of another challenge than glioma",
        ),
    ),
    doubts=DOUBTS,
    derived_words=DERIVED_WORDS,
    variant_words=VARIANT_WORDS,
    label_neighbours=LABEL_NEIGHBOURS,
    other_label_words=OTHER_LABEL_WORDS,
    class_words={
        "NETC": ("netc", "ncr", "net", "necrosis", "necrotic", "nonenhancing"),
        "SNFH": ("snfh", "surrounding", "nonenhancing", "flair", "hyperintensity", "ed", "edema", "oedema"),
        "ET": ("et", "enhancing", "tissue"),
        "RC": ("rc", "resection", "cavity"),
    },
    region_words=REGION_WORDS,
    region_titles={**REGION_TITLES, "RC": "resection cavity"},
    filler_words=FILLER_WORDS,
    images="co-registered NIfTI images of the head without the skull",
    body="brain",
    voxel_mm=(1.0, 1.0, 1.0),
    most_foreground_ml=MOST_BRAIN_ML,
    limits=(
        "It was trained for glioma after treatment. It knows other tumours and children only if the training cases "
        "contained them.",
    ),
)
