"""BraTS: adult glioma before treatment, as the challenge had it until 2023 and as the paper's experiments use it."""

from __future__ import annotations

from fedmepd.tasks.labels import Convention
from fedmepd.tasks.task import MADE_UP, CaseNames, Decathlon, Doubt, SmallClass, Task

# Brains have 0.9 to 1.9 litres, heads more than 3.
MOST_BRAIN_ML = 2300.0

_MODALITIES = ("FLAIR", "T1ce", "T1", "T2")

# The modality subsets of sites 1 to 8 in the paper's protocol (algorithm section 1, table 1 of the paper).
PROTOCOL_SUBSETS: tuple[tuple[str, ...], ...] = (
    ("FLAIR", "T1ce", "T1"),
    ("FLAIR", "T1", "T2"),
    ("FLAIR", "T1ce"),
    ("T1", "T2"),
    ("T1ce",),
    ("T2",),
    _MODALITIES,
    _MODALITIES,
)

# With one of these words, a T1 may be an image with contrast agent, and a T2 may be a FLAIR.
DOUBTS = (
    Doubt(
        "T1",
        ("gd", "km", "ce", "post"),
        "T1ce",
        # Contrast agents, their names, and words for their use in several languages.
        beginnings=("contrast", "gad", "gdd", "enh", "inj", "mdc", "postc", "postg", "postk"),
    ),
    Doubt("T2", ("dark", "darkfluid", "da", "tirm"), "FLAIR"),
)
# With one of these words, the file is not the image itself but was derived from it or outlines something in it, or it
# is of another sequence, as T2*, diffusion and perfusion are.
DERIVED_WORDS = (
    *("unstripped", "map", "mask", "subtraction", "subtracted", "lesion", "roi"),
    *("star", "t2star", "gre", "swi", "ffe", "hemo", "medic"),
    *("dsc", "dce", "dwi", "diff", "epi", "perf", "perfusion"),
)

# As UCSF-PDGM calls images that are corrected for the coil's bias.
VARIANT_WORDS = ("bias",)
LABEL_NEIGHBOURS = ("mask", "dseg", "roi", "glistrboost", "tumor", "tumour", "lesion", "annotation", "gt", "manual")
OTHER_LABEL_WORDS = ("brain", "brainmask", "parenchyma", "tissue", "skull", "ventricles")

REGION_WORDS = {"WT": ("whole",), "TC": ("core",), "ET": ("enhancing",)}
REGION_TITLES = {"WT": "whole tumour", "TC": "tumour core", "ET": "enhancing tumour"}

# In the names of classes.
FILLER_WORDS = ("tumor", "tumour", "core", "and", "peritumoral", "peritumoural", "gd")

_SINCE_2023 = "BraTS 2023 or later"

TASK = BRATS = Task(
    name="brats",
    title="Brain tumour segmentation",
    subject="diffuse glioma in brain MRI",
    modalities=_MODALITIES,
    # Of BraTS 2017 to 2024, the Decathlon, BIDS, BraTS toolkits and TCGA pre-processing.
    words={
        "FLAIR": ("flair", "fla", "t2f", "t2flair"),
        "T1ce": ("t1ce", "t1c", "t1gd", "t1post", "ct1"),
        "T1": ("t1", "t1n", "t1w"),
        "T2": ("t2", "t2w"),
    },
    label_words=("seg", "segm", "segmentation", "label"),
    classes=("background", "NCR/NET", "ED", "ET"),
    conventions={
        "brats": Convention("BraTS until 2021", {0: 0, 1: 1, 2: 2, 4: 3}),
        "brats2023": Convention(
            "BraTS from 2023 on",
            {0: 0, 1: 1, 2: 2, 3: 3},
            aliases=("2023",),
            elsewhere={
                4: "since 2024 BraTS has resection cavities as 4: --labels brats2024 reads them as background, task "
                "brats_post_treatment as a class of their own"
            },
        ),
        # The same names and values as in 2023, and resection cavities.
        "brats2024": Convention(
            "BraTS from 2024 on, resection cavities as background",
            {0: 0, 1: 1, 2: 2, 3: 3, 4: 0},
            aliases=("2024",),
            by_values=False,
        ),
        # Enhancing tumour, non-enhancing tumour, cystic component, oedema.
        "brats-ped2024": Convention("BraTS-PED from 2024 on", {0: 0, 1: 3, 2: 1, 3: 1, 4: 2}, by_values=False),
        # Necrosis, oedema, non-enhancing tumour, enhancing tumour.
        "brats2015": Convention("BraTS 2012 to 2015", {0: 0, 1: 1, 2: 2, 3: 1, 4: 3}, by_values=False),
        # The Erasmus Glioma Database outlines the whole tumour alone.
        "egd": Convention("EGD", {0: 0, 1: 1}, groups=((0,), (1, 2, 3)), by_values=False),
        "msd": Convention("Decathlon", {0: 0, 1: 2, 2: 1, 3: 3}),
    },
    default_convention="brats",
    regions={"WT": (1, 2, 3), "TC": (1, 3), "ET": (3,)},
    colours={"WT": "#4dab6d", "TC": "#e8c33c", "ET": "#e0533c"},
    class_colours=("#e8c33c", "#4dab6d", "#e0533c"),
    case_names=(
        # Brats18_CBICA_AAB_1: year, institution, patient, examination.
        CaseNames(
            "BraTS 20{year}",
            r"(?P<patient>brats(?P<year>1[789])_(?P<institution>[a-z]+\d*|\d{4})_.+)_\d+",
            "brats",
        ),
        CaseNames("BraTS 2020", r"brats20_(training|validation)_\d+", "brats"),
        CaseNames("BraTS 2021", r"brats2021_\d+", "brats"),
        # Phantom_site-1_006, of fedmepd data phantom.
        CaseNames(MADE_UP, r"phantom_.+_\d+", "brats"),
        CaseNames("UPENN-GBM", r"(?P<patient>upenn-gbm-\d+)_\d+", "brats"),
        CaseNames("UCSF-PDGM", r"(?P<patient>ucsf-pdgm-\d+)(_fu\d+d)?(_nifti)?", "brats"),
        CaseNames("EGD", r"egd-\d+", "egd", gathered=True, label_words=("mask",)),
        # BraTS-GLI-00001-000, BraTS-MEN-RT-0001-1, BraTS-GoAT-00001: challenge, patient, examination. Since 2024 some
        # challenges use 4 for resection cavities, which the checks of label values refuse.
        CaseNames(_SINCE_2023, r"(?P<patient>brats-(gli|ssa)-\d+)(-\d+)?", "brats2023"),
        CaseNames(_SINCE_2023, r"(?P<patient>brats-men-\d+)(-\d+)?", "brats2023", other_disease="meningioma"),
        CaseNames(_SINCE_2023, r"(?P<patient>brats-met-\d+)(-\d+)?", "brats2023", other_disease="metastases"),
        # In 2023 with the values of all challenges; since 2024 with others under the same names.
        CaseNames(
            _SINCE_2023,
            r"(?P<patient>brats-peds?-\d+)(-\d+)?",
            None,
            "labels of children's tumours, which had other values in 2023 than since 2024",
            choices=("brats2023", "brats-ped2024"),
        ),
        CaseNames(
            _SINCE_2023,
            r"(?P<patient>brats-men-rt-\d+)(-\d+)?",
            None,
            "labels of one class, the tumour volume to irradiate",
        ),
        CaseNames(_SINCE_2023, r"(?P<patient>brats-goat-\d+)(-\d+)?", None, "labels of several kinds of tumours"),
        CaseNames(
            _SINCE_2023,
            r"(?P<patient>brats-[a-z]+(-[a-z]+)*-\d+)(-\d+)?",
            None,
            "labels of a challenge that is not known here",
        ),
    ),
    doubts=DOUBTS,
    derived_words=DERIVED_WORDS,
    variant_words=VARIANT_WORDS,
    label_neighbours=LABEL_NEIGHBOURS,
    other_label_words=OTHER_LABEL_WORDS,
    class_words={
        "NCR/NET": ("ncr", "net", "netc", "necrosis", "necrotic", "nonenhancing"),
        "ED": ("ed", "edema", "oedema", "snfh"),
        "ET": ("et", "enhancing"),
    },
    region_words=REGION_WORDS,
    region_titles=REGION_TITLES,
    filler_words=FILLER_WORDS,
    # Task01: 1 oedema, 2 non-enhancing tumour, 3 enhancing tumour.
    decathlon=Decathlon("Decathlon (MSD) Task01", r"BRATS_\d{3}", ("FLAIR", "T1", "T1ce", "T2"), "msd"),
    protocol=PROTOCOL_SUBSETS,
    phantom_intensities={
        #        outside, white, grey, CSF, NCR, ED, ET
        "FLAIR": (0.0, 0.50, 0.62, 0.12, 0.60, 0.92, 0.80),
        "T1ce": (0.0, 0.72, 0.55, 0.20, 0.34, 0.50, 0.98),
        "T1": (0.0, 0.76, 0.58, 0.22, 0.36, 0.50, 0.50),
        "T2": (0.0, 0.42, 0.55, 0.98, 0.85, 0.78, 0.66),
    },
    limits=(
        "It segments the regions that BraTS defines for diffuse glioma (WT, TC, ET). It knows other tumours, operated "
        "brains and children only if the training cases contained them.",
    ),
    images="co-registered NIfTI images of the head without the skull",
    body="brain",
    # Of all data sets of BraTS. Nothing is resampled.
    voxel_mm=(1.0, 1.0, 1.0),
    most_foreground_ml=MOST_BRAIN_ML,
    # The diagonal of BraTS' volumes of 240 x 240 x 155 mm.
    empty_distance_mm=373.13,
    # BraTS' teams avoid a Dice of 0 in cases without any enhancing tumour.
    small_class=SmallClass(number=3, becomes=1),
)
