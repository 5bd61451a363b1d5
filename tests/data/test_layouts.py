import pytest

from fedmepd.data.cases import PLAIN
from fedmepd.data.file_kinds import Pattern
from fedmepd.data.layouts import NESTED, find_dataset
from fedmepd.data.source import no_case
from fedmepd.errors import DataError, SettingsError
from fedmepd.tasks.brats import BRATS

WORDS = ("flair", "t1ce", "t1", "t2", "seg")
NAMES = ("FLAIR", "T1ce", "T1", "T2", "label")


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def files(template, words):
    return [template.format(word) for word in words]


@pytest.mark.parametrize(
    ("case", "found_files", "layout", "patient", "institution", "convention"),
    [
        # Case folder, file of each of NAMES, and what is to be known of the case.
        (
            "MICCAI_BraTS_2018_Data_Training/HGG/Brats18_CBICA_AAB_1",
            files("Brats18_CBICA_AAB_1_{}.nii.gz", ("flair", "t1ce", "t1", "t2", "seg")),
            *("BraTS 2018", "Brats18_CBICA_AAB", "CBICA", "brats"),
        ),
        (
            "LGG/Brats17_2013_24_2",
            files("Brats17_2013_24_2_{}.nii.gz", ("flair", "t1ce", "t1", "t2", "seg")),
            *("BraTS 2017", "Brats17_2013_24", "2013", "brats"),
        ),
        (
            "HGG/BraTS19_TCIA01_147_1",
            files("BraTS19_TCIA01_147_1_{}.nii", ("flair", "t1ce", "t1", "t2", "seg")),
            *("BraTS 2019", "BraTS19_TCIA01_147", "TCIA01", "brats"),
        ),
        (
            "BraTS20_Training_001",
            files("BraTS20_Training_001_{}.nii.gz", ("flair", "t1ce", "t1", "t2", "seg")),
            *("BraTS 2020", "BraTS20_Training_001", None, "brats"),
        ),
        (
            # The one whose segmentation the organisers misnamed.
            "BraTS20_Training_355",
            [*files("BraTS20_Training_355_{}.nii", ("flair", "t1ce", "t1", "t2")), "W39_1998.09.19_Segm.nii"],
            *("BraTS 2020", "BraTS20_Training_355", None, "brats"),
        ),
        (
            "BraTS2021_00006",
            files("BraTS2021_00006_{}.nii.gz", ("flair", "t1ce", "t1", "t2", "seg")),
            *("BraTS 2021", "BraTS2021_00006", None, "brats"),
        ),
        (
            "BraTS-GLI-00001-000",
            files("BraTS-GLI-00001-000-{}.nii.gz", ("t2f", "t1c", "t1n", "t2w", "seg")),
            *("BraTS 2023 or later", "BraTS-GLI-00001", None, "brats2023"),
        ),
        ("TCGA-DU-7294", files("{}.nii.gz", ("fla", "t1c", "t1", "t2", "seg")), PLAIN, "TCGA-DU-7294", None, None),
        ("007", files("007.{}.NII", ("FLAIR", "T1Gd", "T1", "T2", "Label")), PLAIN, "007", None, None),
        ("a", files("sub-a_{}.nii.gz", ("T2-FLAIR", "T1_post", "T1w", "T2w", "segmentation")), PLAIN, "a", None, None),
        # The folder's name does not count: a study may be called after a modality.
        ("T1_study", files("T1_study_{}.nii.gz", ("flair", "t1-ce", "t1", "t2", "seg")), PLAIN, "T1_study", None, None),
        (
            "patient-17/2019-03",
            files("{}.nii.gz", ("flair", "t1ce", "t1", "t2", "seg")),
            *(NESTED, "patient-17", None, None),
        ),
    ],
)
def test_a_case_of_every_layout(tmp_path, case, found_files, layout, patient, institution, convention):
    beside = tmp_path / case.rpartition("/")[0] if "/" in case else tmp_path
    touch(tmp_path / case, *found_files, "notes.txt", ".hidden_t1.nii.gz", "._x_t1.nii", "pret1x.nii.gz")
    touch(beside / "another", "readme.txt")
    if layout == NESTED:
        touch(tmp_path / "patient-18" / "2020-01", "flair.nii.gz")
    dataset = find_dataset(BRATS, tmp_path)
    found = next(one for one in dataset.cases if one.patient == patient)
    assert [path.name for _, path, _ in found.volumes] == found_files
    assert [kind for kind, _, _ in found.volumes] == list(NAMES)
    assert (found.layout, found.institution, found.convention) == (layout, institution, convention)
    assert found.name == ("patient-17_2019-03" if layout == NESTED else case.rpartition("/")[2])
    assert dataset.layout == layout
    # What has another name is passed over, but not in silence.
    assert [(finding.severity, finding.kind) for finding in found.findings] == [
        ("note", "file of another name, passed over")
    ]
    assert "pret1x.nii.gz" in found.findings[0].text


def test_the_decathlon(tmp_path):
    root = tmp_path / "Task01_BrainTumour"
    touch(root, "imagesTr/BRATS_001.nii.gz", "imagesTr/._BRATS_001.nii.gz", "labelsTr/BRATS_001.nii.gz")
    touch(root, "imagesTs/BRATS_485.nii.gz")
    for folder in (root, tmp_path):
        labelled, unlabelled = find_dataset(BRATS, folder).cases
        assert (labelled.name, labelled.layout, labelled.convention) == ("BRATS_001", "Decathlon (MSD) Task01", "msd")
        assert set(labelled.images.values()) == {root / "imagesTr" / "BRATS_001.nii.gz"}
        assert labelled.channels == {"FLAIR": 0, "T1": 1, "T1ce": 2, "T2": 3}
        assert labelled.label == root / "labelsTr" / "BRATS_001.nii.gz"
        assert (unlabelled.name, unlabelled.label) == ("BRATS_485", None)


def test_cases_are_sorted_by_name_across_groups(tmp_path):
    touch(tmp_path, "HGG/c/t1.nii", "LGG/a/t2.nii", "b/seg.nii", "survival.csv", ".a.part/x/t1.nii", "logs/run.txt")
    found = find_dataset(BRATS, tmp_path).cases
    assert [(case.name, case.modalities, case.label is None) for case in found] == [
        ("a", ("T2",), True),
        ("b", (), False),
        ("c", ("T1",), True),
    ]


def test_layouts_side_by_side_are_counted(tmp_path):
    touch(tmp_path, "BraTS2021_00006/x_t1.nii", "BraTS2021_00009/x_t1.nii", "mine/t1.nii")
    assert find_dataset(BRATS, tmp_path).layout == "BraTS 2021 (2), a folder per case (1)"


def test_folders_in_folders(tmp_path):
    """Only where they are asked for, and never in silence: the upper folder might be a group and no patient."""
    touch(tmp_path, "p1/may/t1.nii", "p1/june/t1.nii", "p2/may/t1.nii")
    dataset = find_dataset(BRATS, tmp_path)
    assert [(case.name, case.patient) for case in dataset.cases] == [
        ("p1_june", "p1"),
        ("p1_may", "p1"),
        ("p2_may", "p2"),
    ]
    assert [finding.severity for finding in dataset.findings] == ["note"]
    assert "folders in folders hold 3 cases of 2 patients: the upper folder" in dataset.findings[0].text
    assert find_dataset(BRATS, tmp_path, deep=False).cases == []
    touch(tmp_path, "HGG/BraTS19_2013_1_1/x_t1.nii", "p3/BraTS19_2013_2_1/x_t1.nii")
    assert [case.name for case in find_dataset(BRATS, tmp_path, deep=False).cases] == ["BraTS19_2013_1_1"]


@pytest.mark.parametrize("place", ["PatA/first/anat", "north/PatA/may/a/b", "2021-01-02/PatA/first"])
def test_deep_folders_do_not_tell_the_patient(tmp_path, place):
    """All of the folders make the name, so that no two are the same; whose they are is asked."""
    touch(tmp_path, f"{place}/t1.nii", "PatB/first/NIfTI/t1.nii")
    other, case = sorted(find_dataset(BRATS, tmp_path).cases, key=lambda case: case.name != "PatB_first_NIfTI")
    names = place.split("/")
    assert (case.name, other.name) == ("_".join(names), "PatB_first_NIfTI")
    folders = ", ".join(names[:-1])
    doubt = f"it is not clear which of the folders {folders} above {tmp_path / place} is the patient"
    if names[0].startswith("2021"):
        doubt = f"2021-01-02, which should be the patient of {tmp_path / place}, is a date"
    assert case.patient_doubt == doubt
    assert not find_dataset(BRATS, tmp_path).findings


@pytest.mark.parametrize(
    ("places", "patients"),
    [
        (("PatA/2021-01-02/NIfTI", "PatA/2021-07-01/NIfTI", "PatB/2021-01-02b/NIfTI"), ("PatA", "PatA", "PatB")),
        (("HGG/PatA/2021-01-02/NIfTI", "HGG/PatB/2021-01-02/NIfTI"), ("PatA", "PatB")),
        (("north/PatA/2021-01-02", "south/PatB/2021-01-02"), ("PatA", "PatB")),
        (("sub-01/ses-1/anat", "sub-01/ses-2/anat", "sub-02/ses-1/anat"), ("sub-01", "sub-01", "sub-02")),
        # LUMIERE.
        (
            ("Patient-001/week-000-1", "Patient-001/week-044", "Patient-002/week-000"),
            ("Patient-001",) * 2 + ("Patient-002",),
        ),
    ],
)
def test_whose_folder_holds_a_date_or_a_session_is_the_patient(tmp_path, places, patients):
    touch(tmp_path, *(f"{place}/t1.nii" for place in places))
    cases = find_dataset(BRATS, tmp_path).cases
    assert [(case.patient, case.patient_doubt) for case in cases] == [(patient, "") for patient in patients]
    assert len({case.name for case in cases}) == len(places)


@pytest.mark.parametrize(
    ("upper", "date"),
    [
        *((name, True) for name in ("2021-01-02", "2021_01_02", "20210102", "2021-01", "02.01.2021", "2021-01-02b")),
        *((name, False) for name in ("PatA", "2013001", "2021-13-02", "12345678", "007", "p-2021-01-02")),
    ],
)
def test_a_date_is_no_patient(tmp_path, upper, date):
    touch(tmp_path, f"{upper}/t1.nii", f"{upper}/a/t1.nii", "other/b/t1.nii")
    cases = {case.name: case for case in find_dataset(BRATS, tmp_path).cases}
    for name, folder in ((upper, tmp_path / upper), (f"{upper}_a", tmp_path / upper / "a")):
        assert cases[name].patient == upper
        doubt = f"{upper}, which should be the patient of {folder}, is a date" if date else ""
        assert cases[name].patient_doubt == doubt


@pytest.mark.parametrize(
    ("names", "named", "kind"),
    [
        (("a/x_t1ce.nii.gz", "a/x_t1gd.nii.gz"), ("x_t1ce.nii.gz", "x_t1gd.nii.gz", "T1ce"), "look like the same"),
        (("a/t2.nii", "a/t2.nii.gz"), ("t2.nii", "t2.nii.gz", "T2"), "look like the same"),
        (("a/seg.nii.gz", "a/label.nii.gz"), ("seg.nii.gz", "label.nii.gz", "label"), "look like the same"),
        (("a/x_t1_t2.nii.gz",), ("x_t1_t2.nii.gz", "T1 or T2"), "may be two modalities"),
        (("a/flair_seg.nii",), ("flair_seg.nii", "FLAIR or label"), "may be two modalities"),
        (("HGG/a/t1.nii", "LGG/a/t1.nii"), ("HGG/a", "LGG/a", "one name"), "two cases of one name"),
    ],
)
def test_ambiguity_names_both(tmp_path, names, named, kind):
    touch(tmp_path, *names, "b/t1.nii")
    dataset = find_dataset(BRATS, tmp_path)
    [found] = [*dataset.findings, *(finding for case in dataset.cases for finding in case.findings)]
    assert found.severity == "error" and kind in found.kind
    assert all(name in found.text for name in named)
    assert "nii" not in found.kind and str(tmp_path) not in found.kind
    # The good case beside it is found all the same.
    assert dataset.cases[-1].name == "b"


@pytest.mark.parametrize(
    "folder", ["T", "S", "F", "se", "Fl", "T1", "t2", "P7", "flair", "Pat7/T1", "Pat7/T2", "T1/T2"]
)
@pytest.mark.parametrize("template", ["{word}", "{folder}_{word}", "{both}_{word}"])
def test_the_folders_name_is_left_out_as_a_whole_alone(tmp_path, folder, template):
    both = folder.replace("/", "_")
    names = {word: template.format(word=word, folder=both.split("_")[-1], both=both) for word in WORDS}
    touch(tmp_path / "data" / folder, *(f"{name}.nii.gz" for name in names.values()))
    touch(tmp_path / "data" / "another", "readme.txt")
    [case] = find_dataset(BRATS, tmp_path / "data").cases
    assert [path.name for path in case.files] == [f"{names[word]}.nii.gz" for word in WORDS] and not case.findings


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        *((name, "T1 or T1ce") for name in ("T1_contrast", "T1_Gad", "T1w_gd", "T1w_post", "T1_KM", "t1_mprage_post")),
        *((name, "T1 or T1ce") for name in ("T1_SE_post", "T1_MPRAGE_CE", "sub-01_ce-ferumoxytol_T1w")),
        *(
            (f"T1_{word}", "T1 or T1ce")
            for word in ("enhanced", "enh", "postgad", "postGd", "gadovist", "contraste", "GdDTPA", "mdc", "inj")
        ),
        *((name, "T2 or FLAIR") for name in ("t2_tirm_tra_dark-fluid", "T2_dark_fluid", "t2_spc_da-fl")),
    ],
)
def test_a_neighbour_that_changes_the_modality(tmp_path, name, kinds):
    touch(tmp_path / "a", f"{name}.nii.gz")
    [case] = find_dataset(BRATS, tmp_path).cases
    [found] = case.findings
    assert not case.images and (found.severity, found.kind) == ("error", "file name that may be two modalities")
    assert f"may be {kinds}" in found.text
    (tmp_path / "cases.csv").write_text(f"case,{name}\na,a/{name}.nii.gz\n")
    with pytest.raises(DataError, match=f"may be {kinds}: rename it"):
        find_dataset(BRATS, tmp_path)


@pytest.mark.parametrize(
    "name",
    ["T1_subtraction", "T1_map", "T2_map", "T2star_T2", "T2_star", "T2_GRE", "T2_SWI", "t2_mask", "FLAIR_lesion_mask"]
    + [f"T2_{word}" for word in ("ffe", "hemo", "medic", "dsc", "epi", "diff")]
    + ["T1_perfusion", "FLAIR_lesion", "FLAIR_roi"],
)
def test_what_is_made_of_a_modality_is_none(tmp_path, name):
    touch(tmp_path / "a", f"{name}.nii.gz", "t1.nii.gz", "t2.nii.gz", "flair.nii.gz", "seg_mask.nii.gz")
    [case] = find_dataset(BRATS, tmp_path).cases
    assert [path.name for path in case.files] == ["flair.nii.gz", "t1.nii.gz", "t2.nii.gz", "seg_mask.nii.gz"]
    assert [found.kind for found in case.findings] == ["file of another name, passed over"]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        *((f"a_flair{end}", "FreeSurfer volumes: convert them with mri_convert") for end in (".mgz", ".MGH")),
        *((f"a_flair{end}", "NRRD or MetaImage") for end in (".nrrd", ".nhdr", ".mha", ".mhd")),
        ("a_flair.img", "pairs of .hdr and .img"),
        ("a_flair.mnc", "MINC volumes"),
        *((f"a_flair{end}", "packed in another way than gzip") for end in (".nii.zip", ".nii.bz2", ".nii.gz.part")),
        ("a_flair.dcm", "DICOM: convert them with dcm2niix"),
        ("IM0001", "DICOM: convert them with dcm2niix"),
    ],
)
def test_images_in_other_formats_do_not_vanish(tmp_path, name, says):
    data = tmp_path / "data"
    touch(data, "a/a_t1.nii.gz", "b/notes", "c/c_t1.nii.gz", "c/raw/x.dcm")
    for folder in ("a", "b"):
        (data / folder / name).write_bytes(bytes(128) + b"DICM")
    a, b, c = find_dataset(BRATS, data).cases
    # The case without any other image is there, and the training refuses it; raw images beside a case are none.
    assert (a.modalities, b.modalities, c.modalities) == (("T1",), (), ("T1",)) and not c.findings
    for case in (a, b):
        [found] = case.findings
        assert (found.severity, found.kind) == ("warning", "images in a format that is not read")
        assert name in found.text and says in found.text
    # Another file of the modality is read.
    touch(data, "a/a_flair.nii.gz")
    [found] = find_dataset(BRATS, data).cases[0].findings
    assert found.severity == ("note" if "flair" in name else "warning")


def test_a_folder_of_other_formats_alone(tmp_path):
    touch(tmp_path, "a/t1.mgz", "b/t1.mgz")
    assert not find_dataset(BRATS, tmp_path).cases
    assert "FreeSurfer volumes: convert them with mri_convert" in str(no_case(BRATS, tmp_path))


@pytest.mark.parametrize("what", ["file", "folder", "circle"])
def test_links_out_of_the_case(tmp_path, what):
    """They are not followed unless the user says so."""
    touch(tmp_path / "elsewhere" / "b", "t1.nii", "t2.nii")
    touch(tmp_path / "data" / "a", "t1.nii")
    if what == "folder":
        (tmp_path / "data" / "b").symlink_to(tmp_path / "elsewhere" / "b")
    else:
        goal = tmp_path / ("elsewhere/b/t2.nii" if what == "file" else "data/a/t2.nii")
        (tmp_path / "data" / "a" / "t2.nii").symlink_to(goal)
    dataset = find_dataset(BRATS, tmp_path / "data")
    [found] = [*dataset.findings, *(finding for case in dataset.cases for finding in case.findings)]
    assert (found.severity, found.kind) == (
        "error",
        "file outside the case's folder",
    ) and "--follow-links" in found.text
    assert [path.name for case in dataset.cases for path in case.files] == ["t1.nii"]
    if what != "circle":
        followed = find_dataset(BRATS, tmp_path / "data", follow_links=True)
        assert len([path for case in followed.cases for path in case.files]) == (2 if what == "file" else 3)


def test_links_within_the_case(tmp_path):
    touch(tmp_path / "data" / "a", "store/x", "t1.nii")
    (tmp_path / "data" / "a" / "t2.nii").symlink_to("store/x")
    [case] = find_dataset(BRATS, tmp_path / "data").cases
    assert case.modalities == ("T1", "T2") and not case.findings


def test_folder_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match="nowhere cannot be read"):
        find_dataset(BRATS, tmp_path / "nowhere")


def test_file_that_is_no_list(tmp_path):
    touch(tmp_path, "t1.nii.gz")
    with pytest.raises(DataError, match="expected a folder of cases, or a list"):
        find_dataset(BRATS, tmp_path / "t1.nii.gz")


@pytest.mark.parametrize(
    ("name", "kind", "says"),
    [
        *(
            (name, "file that may be the label, passed over", "--pattern 'label=*")
            for name in ("a_MASK", "a_dseg", "a_GlistrBoost", "a_tumor_roi", "a_manual", "a_tumorMask")
        ),
        ("a_fliar", "file name with a word that is nearly a known one", "'fliar' is nearly 'flair'"),
        ("a_segmentaton", "file name with a word that is nearly a known one", "is nearly 'segmentation'"),
        ("a_labell", "file name with a word that is nearly a known one", "is nearly 'label'"),
    ],
)
def test_what_may_be_meant_is_a_warning(tmp_path, name, kind, says):
    touch(tmp_path, f"a/{name}.nii.gz", "a/a_t1.nii.gz", "b/b_t1.nii.gz")
    [found] = find_dataset(BRATS, tmp_path).cases[0].findings
    assert (found.severity, found.kind) == ("warning", kind) and says in found.text
    # Beside a label, a mask is none.
    touch(tmp_path, "a/a_seg.nii.gz")
    [found] = find_dataset(BRATS, tmp_path).cases[0].findings
    assert found.severity == ("note" if "may be the label" in kind else "warning")


@pytest.mark.parametrize("name", ["a_brainmask", "a_brain_mask", "a_brain_segmentation", "a_flow", "a_adc", "a_dti_fa"])
def test_what_is_not_meant_is_a_note(tmp_path, name):
    touch(tmp_path, f"a/{name}.nii.gz", "a/a_t1.nii.gz", "b/b_t1.nii.gz")
    case = find_dataset(BRATS, tmp_path).cases[0]
    assert [found.severity for found in case.findings] == ["note"] and case.label is None


def patterns(*texts):
    return [Pattern.read(BRATS, text) for text in texts]


def test_patterns_decide(tmp_path):
    """For a kind with a pattern, only the files that match are of it; words decide the others."""
    for case in ("a", "b"):
        touch(
            tmp_path / case, *(f"{case}_{word}.nii.gz" for word in ("T1_contrast", "T1", "flair", "flair_old", "MASK"))
        )
    dataset = find_dataset(BRATS, tmp_path)
    [twice, ambiguous] = [found for found in dataset.cases[0].findings if found.severity == "error"]
    assert "--pattern 'T1ce=*_T1_contrast.nii.gz'" in ambiguous.text + twice.text
    assert "--pattern 'FLAIR=*_flair.nii.gz' or --pattern 'FLAIR=*_flair_old.nii.gz'" in ambiguous.text + twice.text
    said = patterns("T1ce=*_T1_contrast.nii.gz", "flair=*_flair.nii.gz", "LABEL=*_MASK.nii.gz")
    for case in find_dataset(BRATS, tmp_path, patterns=said).cases:
        found = {kind: path.name.removeprefix(f"{case.name}_") for kind, path, _ in case.volumes}
        assert found == {
            "FLAIR": "flair.nii.gz",
            "T1ce": "T1_contrast.nii.gz",
            "T1": "T1.nii.gz",
            "label": "MASK.nii.gz",
        }
        assert [finding.severity for finding in case.findings] == ["note"]
    # What may be of a kind that is described otherwise is not taken for another.
    touch(tmp_path / "a", "a_T1_gad.nii.gz")
    assert [case.images["T1"].name for case in find_dataset(BRATS, tmp_path, patterns=said).cases][0] == "a_T1.nii.gz"


def test_a_pattern_with_folders(tmp_path):
    """The images of a case may lie in folders of their own, as in EGD."""
    for case in ("EGD-0001", "EGD-0002"):
        for number, kind in enumerate(("T1", "T1GD", "T2", "FLAIR", "MASK"), 1):
            touch(tmp_path / case, f"{number}_{kind}/NIFTI/{kind}.nii.gz")
    said = patterns(
        "T1=1_T1/NIFTI/T1.nii.gz",
        "T1ce=2_T1GD/NIFTI/T1GD.nii.gz",
        "T2=3_T2/*/T2.nii.gz",
        "FLAIR=4_FLAIR/*/FLAIR.nii.gz",
        "label=5_MASK/*/MASK.nii.gz",
    )
    cases = find_dataset(BRATS, tmp_path, patterns=said).cases
    assert [(case.name, case.patient, case.modalities) for case in cases] == [
        (name, name, BRATS.modalities) for name in ("EGD-0001", "EGD-0002")
    ]
    assert all(case.label.name == "MASK.nii.gz" and not case.findings for case in cases)


@pytest.mark.parametrize("text", ["T1ce", "PET=*.nii", "T1=", "T1=/etc/*", "T1=../*"])
def test_patterns_that_make_no_sense(text):
    with pytest.raises(SettingsError, match="expected KIND=PATTERN"):
        Pattern.read(BRATS, text)


def test_corrected_variants_beside_the_plain_images(tmp_path):
    """UCSF-PDGM has both, and three files with the word segmentation."""
    case = "UCSF-PDGM-0004"
    names = (
        "FLAIR",
        "FLAIR_bias",
        "T1",
        "T1_bias",
        "T1c",
        "T1c_bias",
        "T2",
        "T2_bias",
        "ADC",
        "SWI",
        "SWI_bias",
        "ASL",
    )
    segmentations = ("brain_segmentation", "brain_parenchyma_segmentation", "tumor_segmentation")
    touch(tmp_path / f"{case}_nifti", *(f"{case}_{name}.nii.gz" for name in (*names, *segmentations)))
    touch(tmp_path / "another", "readme.txt")
    [found] = find_dataset(BRATS, tmp_path).cases
    assert [path.name.removeprefix(f"{case}_") for path in found.files] == [
        f"{word}.nii.gz" for word in ("FLAIR", "T1c", "T1", "T2", "tumor_segmentation")
    ]
    assert {finding.severity for finding in found.findings} == {"note"}
    (tmp_path / f"{case}_nifti" / f"{case}_T1.nii.gz").unlink()
    [found] = find_dataset(BRATS, tmp_path).cases
    assert found.images["T1"].name == f"{case}_T1_bias.nii.gz"


@pytest.mark.parametrize(
    ("names", "doubtful"),
    [
        (("P001_20190301", "P001_20200512", "P002_20190301"), ("P001_20190301", "P001_20200512")),
        (("P001-2019-03-01", "P001-2020-05-12"), ("P001-2019-03-01", "P001-2020-05-12")),
        (("sub-01_ses-1", "sub-01_ses-2"), ("sub-01_ses-1", "sub-01_ses-2")),
        (("P001_20190301", "P002_20190301"), ()),
        # A number alone: of a data set whose folders all begin alike, or of patients.
        (("P001_1", "P001_2"), ()),
        (("P001_1", "P001_2", "P002_1"), ("P001_1", "P001_2")),
        (("P001_1", "P001_2", "P002"), ("P001_1", "P001_2")),
        (("HGG_1", "HGG_2", "LGG_1", "LGG_2"), ()),
        (("TCGA-02-0003", "TCGA-02-0006", "TCGA-08-0001"), ()),
        (("P001_1", "P002_1", "P003_2"), ()),
        # A number behind a word for an examination.
        (("P001_scan1", "P001_scan2"), ("P001_scan1", "P001_scan2")),
        (("P001-visit-1", "P001-visit-2", "P002-visit-1"), ("P001-visit-1", "P001-visit-2")),
        (("alpha_tp1", "alpha_tp02", "beta_tp1"), ("alpha_tp02", "alpha_tp1")),
        (("P001_baseline", "P001_followup"), ("P001_baseline", "P001_followup")),
        (("P001_baseline", "P001_20200512"), ("P001_20200512", "P001_baseline")),
        (("brain_scan_001", "brain_scan_002"), ()),
        (("scan1", "scan2"), ()),
        (("P001_scan1", "P002_scan1"), ()),
    ],
)
def test_folders_that_may_be_examinations_of_one_patient(tmp_path, names, doubtful):
    touch(tmp_path, *(f"{name}/t1.nii" for name in names))
    cases = find_dataset(BRATS, tmp_path).cases
    assert tuple(case.name for case in cases if case.patient_doubt) == doubtful
    assert all("may be examinations of one patient" in case.patient_doubt for case in cases if case.patient_doubt)


def test_folders_of_images_and_of_labels(tmp_path):
    touch(tmp_path, *(f"images/{case}/{case}_t1.nii.gz" for case in ("P001", "P002")))
    touch(tmp_path, *(f"labels/{case}_seg.nii.gz" for case in ("P001", "P002")))
    cases = find_dataset(BRATS, tmp_path).cases
    assert [(case.patient, case.label.name) for case in cases] == [
        ("P001", "P001_seg.nii.gz"),
        ("P002", "P002_seg.nii.gz"),
    ]
