"""The Decathlon's layout with files of others: what dataset.json says is read, or refused, and never guessed."""

import json

import numpy as np
import pytest

from fedmepd.cli import main
from fedmepd.data.layouts import find_dataset
from fedmepd.data.manifest import read_manifest
from fedmepd.data.preparation import read_case
from fedmepd.errors import DataError
from fedmepd.tasks.brats import BRATS
from tests.data.files import save, tumour, volume, write_case

CHANNELS = {"0": "T1w", "1": "t1gd", "2": "T2w", "3": "FLAIR"}
READ = {"T1": 0, "T1ce": 1, "T2": 2, "FLAIR": 3}
TASK01 = {"0": "background", "1": "edema", "2": "non-enhancing tumor", "3": "enhancing tumour"}
DOUBT = "label of other classes, by the name of its case or dataset.json"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDMEPD_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path):
    """One labelled case of four volumes."""
    made = tmp_path / "data"
    volumes = np.stack([volume(100 * (place + 1)) for place in range(4)], axis=-1)
    save(made / "imagesTr" / "BRATS_001.nii.gz", volumes)
    values = tumour()
    save(made / "labelsTr" / "BRATS_001.nii.gz", np.where(values == 4, 3, values).astype("uint8"))
    return made


def describe(folder, content, encoding="utf-8"):
    (folder / "dataset.json").write_text(content if isinstance(content, str) else json.dumps(content), encoding)


@pytest.mark.parametrize(
    "told",
    [
        {"modality": CHANNELS},
        {"channel_names": CHANNELS},
        {"modality": CHANNELS, "channel_names": list(CHANNELS.values())},
        {"modality": {f"000{number}": name for number, name in CHANNELS.items()}},
        {"modality": dict(reversed(CHANNELS.items()))},
        {"modality": ["T1", "T1-Gd", "t2", "T2-FLAIR"]},
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_channels_that_are_told(folder, told, encoding):
    describe(folder, told | {"labels": TASK01}, encoding)
    assert main(["data", "init", str(folder)]) == 0
    [case] = read_manifest(BRATS, folder)[0]
    assert case.channels == READ and case.convention == "msd"


def test_fewer_channels(folder):
    describe(folder, {"modality": {"0": "T2w", "1": "FLAIR"}, "labels": TASK01})
    assert find_dataset(BRATS, folder).cases[0].channels == {"T2": 0, "FLAIR": 1}


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ({"modality": {"0": "CT"}}, "modality is {"),
        # Neighbours that change a word's meaning.
        *(
            ({"channel_names": ["FLAIR", "T1", word, "T2"]}, "channel_names is [")
            for word in ("T1 contrast", "T1 map", "MRI", "T1/T2", "seg", "T1", 3)
        ),
        ({"modality": {"1": "FLAIR", "2": "T1w"}}, "modality is {"),
        ({"modality": {"0": "FLAIR", "00": "T1w"}}, "modality is {"),
        ({"modality": {"first": "FLAIR"}}, "modality is {"),
        ({"modality": {}}, "modality is {"),
        ({"modality": "MRI"}, "modality is "),
        ({"modality": CHANNELS, "channel_names": ["FLAIR", "T1", "T1ce", "T2"]}, "say different channels"),
        ({"name": "BRATS"}, "modality is missing"),
        ([], "expected an object"),
        ('{"modality": {"0": "T2w",', "cannot be read as JSON"),
    ],
)
def test_channels_that_are_not_clear(folder, capsys, content, text):
    describe(folder, content | {"labels": TASK01} if isinstance(content, dict) else content)
    for command in ("check", "init"):
        assert main(["data", command, str(folder), "--labels", "msd"]) == 2
        printed = capsys.readouterr().err
        assert f"{folder / 'dataset.json'}" in printed and text in printed
    with pytest.raises(DataError) as error:
        find_dataset(BRATS, folder)
    assert error.value.public == "the dataset.json of the site's data cannot be used"


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (TASK01, "msd"),
        ({"background": 0, "edema": 1, "non-enhancing tumor": 2, "enhancing tumour": 3}, "msd"),
        # The values of BraTS from 2023 on: of the same files, NCR/NET and ED the other way round.
        (
            {"0": "background", "1": "necrotic and non-enhancing tumor", "2": "edema", "3": "enhancing tumor"},
            "brats2023",
        ),
        ({"background": 0, "NCR": 1, "peritumoral oedema": 2, "ET": 3}, "brats2023"),
        ({"background": 0, "NETC": 1, "SNFH": 2, "ET": 3}, "brats2023"),
        ({"background": 0, "necrosis": 1, "edema": 2, "Gd-enhancing tumor": 3}, "brats2023"),
        # nnU-Net's regions: 1 is in the whole tumour alone, 2 in the core too, 3 in all.
        ({"background": 0, "whole tumor": [1, 2, 3], "tumor core": [2, 3], "enhancing tumor": 3}, "msd"),
        ({"background": 0, "WT": [1, 2, 3], "TC": [1, 3], "ET": [3]}, "brats2023"),
        # In an order that no known convention has.
        ({"0": "background", "1": "enhancing tumor", "2": "non-enhancing tumor", "3": "edema"}, "dataset.json"),
        (
            {"0": "background", "1": "necrosis", "2": "edema", "3": "non-enhancing tumor", "4": "enhancing tumor"},
            "brats2015",
        ),
    ],
)
def test_labels_that_are_told(folder, labels, expected):
    describe(folder, {"modality": CHANNELS, "labels": labels})
    assert main(["data", "init", str(folder)]) == 0
    assert [case.convention for case in read_manifest(BRATS, folder)[0]] == [expected]


@pytest.mark.parametrize(
    "labels",
    [
        None,
        {},
        ["background", "edema", "necrosis", "enhancing tumor"],
        {"0": "background", "1": "tumor", "2": "edema", "3": "enhancing tumor"},
        {"0": "background", "1": "edema", "2": "resection cavity", "3": "enhancing tumor"},
        {"0": "background", "1": "edema", "2": "enhancing and non-enhancing tumor", "3": "enhancing tumor"},
        {"0": "background", "1": "edema", "2": "necrosis"},
        {"background": 0, "whole tumor": [1, 2, 3], "core of something": [2, 3], "enhancing tumor": 3},
        {"background": 0, "whole tumor": [1, 2, 3], "enhancing tumor": [0, 3]},
        {"background": 0, "edema": 1, "necrosis": 1, "enhancing tumor": 3},
        {"background": 0, "edema": True, "necrosis": 2, "enhancing tumor": 3},
    ],
)
def test_labels_that_are_not_clear(folder, capsys, labels):
    describe(folder, {"modality": CHANNELS} | ({} if labels is None else {"labels": labels}))
    assert main(["data", "check", str(folder)]) == 1
    assert f"1  {DOUBT}\n" in capsys.readouterr().out
    assert main(["data", "init", str(folder)]) == 2
    assert f"labels in {folder / 'dataset.json'} is" in (told := capsys.readouterr().err) and "--labels" in told
    assert main(["data", "init", str(folder), "--labels", "brats2023"]) == 0
    assert [case.convention for case in read_manifest(BRATS, folder)[0]] == ["brats2023"]


def test_without_the_file_only_the_decathlons_own_cases_are_read(folder, capsys):
    assert main(["data", "check", str(folder)]) == 0
    assert "1  no dataset.json, read as the Decathlon's\n" in capsys.readouterr().out
    assert find_dataset(BRATS, folder).cases[0].channels == {"FLAIR": 0, "T1": 1, "T1ce": 2, "T2": 3}
    (folder / "imagesTr" / "BRATS_001.nii.gz").rename(folder / "imagesTr" / "Patient_001.nii.gz")
    assert main(["data", "check", str(folder)]) == 2
    assert f"{folder / 'dataset.json'} does not exist" in capsys.readouterr().err


def test_a_file_elsewhere_is_not_read(folder, tmp_path):
    describe(tmp_path, {"modality": CHANNELS, "labels": TASK01})
    (folder / "dataset.json").symlink_to(tmp_path / "dataset.json")
    with pytest.raises(DataError, match="leads out of"):
        find_dataset(BRATS, folder)
    assert find_dataset(BRATS, folder, follow_links=True).cases[0].channels == READ


def test_an_order_of_ones_own_is_read_and_kept(folder):
    told = {"background": 0, "enhancing tumor": 1, "non-enhancing tumor": 2, "edema": 3}
    describe(folder, {"modality": CHANNELS, "labels": told})
    assert main(["data", "init", str(folder)]) == 0
    [case] = read_manifest(BRATS, folder)[0]
    # The fixture's 1, 2 and 3 are one voxel, the oedema of the cube, and one voxel.
    assert np.bincount(read_case(case)["label"].numpy().ravel())[1:].tolist() == [6, 1, 1]


def test_the_whole_tumour_as_one_value(folder):
    """Told by the file, so nobody has to be asked."""
    path = folder / "labelsTr" / "BRATS_001.nii.gz"
    save(path, (tumour() > 0).astype("uint8"))
    describe(folder, {"channel_names": CHANNELS, "labels": {"background": 0, "whole tumor": 1}})
    assert main(["data", "init", str(folder)]) == 0
    assert [case.label_groups for case in read_manifest(BRATS, folder)[0]] == [((0,), (1, 2, 3))]


@pytest.mark.parametrize("ending", [".nii.gz", ".nii"])
def test_nnunets_raw_layout(tmp_path, ending):
    """A file per channel, in the order of channel_names."""
    root = tmp_path / "Dataset137_BraTS"
    for case in ("BraTS2021_00001", "BraTS2021_00002"):
        for number in range(4):
            save(root / "imagesTr" / f"{case}_{number:04d}{ending}", volume(100 * (number + 1)))
        save(root / "labelsTr" / f"{case}{ending}", np.where(tumour() == 4, 3, tumour()).astype("uint8"))
    save(root / "imagesTs" / f"BraTS2021_00003_0003{ending}", volume(7))
    regions = {"background": 0, "whole tumor": [1, 2, 3], "tumor core": [2, 3], "enhancing tumor": [3]}
    describe(root, {"channel_names": CHANNELS, "labels": regions, "regions_class_order": [1, 2, 3]})
    dataset = find_dataset(BRATS, tmp_path)
    assert dataset.layout == "nnU-Net's raw layout" and not dataset.findings
    first, _, unlabelled = dataset.cases
    assert {kind: path.name for kind, path in first.images.items()} == {
        kind: f"BraTS2021_00001_{number:04d}{ending}" for kind, number in READ.items()
    }
    assert (first.convention, first.channels, first.label.name) == ("msd", {}, f"BraTS2021_00001{ending}")
    assert (unlabelled.name, unlabelled.modalities, unlabelled.label) == ("BraTS2021_00003", ("FLAIR",), None)
    assert main(["data", "check", str(root)]) == 1  # the two cases are copies of one another
    save(root / "imagesTr" / f"BraTS2021_00001_0004{ending}", volume(9))
    [found] = find_dataset(BRATS, root).findings
    assert found.kind == "channel that dataset.json does not name, passed over"


FIRST_ET = {"background": 0, "ET": 1, "ED": 2, "NCR": 3}


def test_a_corrected_file_counts_the_next_time(folder):
    for labels, voxels in ((FIRST_ET, [1, 6, 1]), ({"background": 0, "ET": 1, "NCR": 2, "ED": 3}, [6, 1, 1])):
        describe(folder, {"modality": CHANNELS, "labels": labels})
        assert main(["data", "init", str(folder)]) == 0
        [case] = read_manifest(BRATS, folder)[0]
        assert np.bincount(read_case(case)["label"].numpy().ravel())[1:].tolist() == voxels


def test_two_data_sets_that_say_other_classes(folder):
    second = folder / "second"
    first = folder.rename(folder.with_name("first"))
    folder.mkdir()
    first.rename(folder / "first")
    save(second / "imagesTr" / "BRATS_002.nii.gz", np.stack([volume(900 + place) for place in range(4)], axis=-1))
    describe(folder / "first", {"modality": CHANNELS, "labels": FIRST_ET})
    describe(second, {"modality": CHANNELS, "labels": FIRST_ET})
    assert len(find_dataset(BRATS, folder).cases) == 2
    describe(second, {"modality": CHANNELS, "labels": {"background": 0, "ET": 1, "NCR": 2, "ED": 3}})
    with pytest.raises(DataError, match="holds several data sets whose dataset.json give the label values other"):
        find_dataset(BRATS, folder)


def test_beside_cases_of_another_layout(folder):
    describe(folder, {"modality": CHANNELS, "labels": FIRST_ET})
    folder.rename(folder.with_name("nnunet"))
    folder.mkdir()
    folder.with_name("nnunet").rename(folder / "nnunet")
    # Comes first by name.
    write_case(folder, "BRATS20_Training_001")
    assert main(["data", "check", str(folder)]) == 0
    assert main(["data", "init", str(folder)]) == 0
    assert [case.convention for case in read_manifest(BRATS, folder)[0]] == ["brats", "dataset.json"]


def test_a_stray_file_beside_those_of_nnunet(tmp_path):
    for case in ("BraTS2021_00001", "BraTS2021_00002"):
        for number in range(4):
            save(tmp_path / "imagesTr" / f"{case}_{number:04d}.nii.gz", volume())
    save(tmp_path / "imagesTr" / "mean.nii.gz", volume())
    describe(tmp_path, {"channel_names": CHANNELS, "labels": TASK01})
    dataset = find_dataset(BRATS, tmp_path)
    assert [(case.name, len(case.images)) for case in dataset.cases] == [("BraTS2021_00001", 4), ("BraTS2021_00002", 4)]
    [found] = dataset.findings
    assert (found.severity, found.kind) == ("note", "image without the number of a channel, passed over")
    assert "mean.nii.gz" in found.text
