import os
import stat
import tempfile

import numpy as np
import pytest
import torch

from fedmepd.data.cases import Case
from fedmepd.data.preparation import PreparedCases
from fedmepd.errors import DataError
from fedmepd.tasks.brats import BRATS
from tests.data.files import LPS, save, volume, write_case


def prepared(cases, cache):
    data = PreparedCases(cases, cache)
    return [data[index] for index in range(len(data))]


def box(value, dtype="int16"):
    """Half of a 4 x 2 x 2 box holds ``value``, the other half three times as much."""
    made = np.zeros((8, 8, 8), dtype=dtype)
    made[2:4, 3:5, 3:5], made[4:6, 3:5, 3:5] = value, 3 * value
    return made


def test_values_by_hand(tmp_path):
    """Mean 2v, standard deviation v: the halves become -1 and 1, the background stays 0."""
    flair, t2 = box(10), box(500)
    flair[0, 0, 0] = -7
    label = np.zeros((8, 8, 8), dtype="uint8")
    # One outside the brain, so that the box grows to it.
    label[2, 3, 3:5], label[3, 3, 3], label[4, 3, 3], label[2, 6, 4] = (1, 2), 4, 4, 4
    [item] = prepared([write_case(tmp_path, modalities=(), FLAIR=flair, T2=t2, label=label)], tmp_path / "cache")

    expected = torch.zeros(2, 4, 4, 2)
    expected[:, :2, :2], expected[:, 2:, :2] = -1, 1
    assert item["image"].dtype == torch.float16 and torch.equal(item["image"].float(), expected)
    classes = torch.zeros(1, 4, 4, 2)
    classes[0, 0, 0, 0], classes[0, 0, 0, 1], classes[0, 1, 0, 0], classes[0, 2, 0, 0], classes[0, 0, 3, 1] = (
        1,
        2,
        3,
        3,
        3,
    )
    assert item["label"].dtype == torch.uint8 and torch.equal(item["label"].float(), classes)
    # Flat indices in 4 x 4 x 2: 8 x + 2 y + z.
    assert item["tumour"].tolist() == [0, 1, 7, 8, 16]
    assert item["brain"].tolist() == [8 * x + 2 * y + z for x in range(4) for y in range(2) for z in range(2)]
    assert item["spacing"].tolist() == [1, 1, 1] and item["corner"].tolist() == [2, 3, 3]


@pytest.mark.parametrize(("convention", "classes"), [("brats2023", (1, 2, 3)), ("msd", (2, 1, 3))])
def test_labels_of_other_conventions(tmp_path, convention, classes):
    """What the file's values 1, 2, 3 become."""
    label = np.zeros((8, 8, 8), dtype="uint8")
    label[2, 3, 3], label[3, 3, 3], label[4, 3, 3] = 1, 2, 3
    case = write_case(tmp_path, modalities=(), T1=box(10), label=label)
    made = Case(case.name, case.images, case.label, convention=convention, task=BRATS)
    [item] = prepared([made], tmp_path / "cache")
    assert item["label"][0, :3, 0, 0].tolist() == list(classes) and int((item["label"] > 0).sum()) == 3
    with pytest.raises(DataError, match="--labels") as error:
        prepared([Case(case.name, case.images, case.label, task=BRATS)], tmp_path / "cache")
    assert "case" not in error.value.public


def test_a_case_without_a_label(tmp_path):
    [item] = prepared([write_case(tmp_path, label=None)], tmp_path / "cache")
    assert item["label"].shape == (1, 4, 5, 6) and not item["label"].any()


def test_volumes_of_one_file(tmp_path):
    """As the Decathlon has them: the same as a file each."""
    images = {"FLAIR": box(10), "T1": box(20)[::-1], "T1ce": box(30)[:, ::-1], "T2": box(40)[:, :, ::-1]}
    separate = write_case(tmp_path, "separate", modalities=(), label=None, **images)
    order = ("FLAIR", "T1", "T1ce", "T2")
    path = save(tmp_path / "joint.nii.gz", np.stack([images[name] for name in order], axis=-1))
    channels = {name: number for number, name in enumerate(order)}
    joint = Case("joint", dict.fromkeys(order, path), None, channels, task=BRATS)
    first, second = prepared([separate, joint], tmp_path / "cache")
    assert torch.equal(first["image"], second["image"])


def test_outliers_can_be_cut_off(tmp_path):
    """1 to 100 with one hundredth of them cut off at either end; the deviation by hand."""
    values = np.zeros((12, 12, 12), dtype="float32")
    values[2:7, 2:7, 2:6] = np.arange(1, 101).reshape(5, 5, 4)
    case = write_case(tmp_path, modalities=(), T1=values, label=None)
    data = PreparedCases([case], tmp_path / "cache", clip_percent=1)
    expected = np.clip(np.arange(1, 101), 1.99, 99.01)
    expected = (expected - expected.mean()) / expected.std()
    np.testing.assert_allclose(data[0]["image"].float().flatten().numpy(), expected, atol=2e-3)
    plain = prepared([case], tmp_path / "cache")[0]["image"].float().flatten().numpy()
    assert abs(plain[0] - (1 - 50.5) / np.arange(1, 101).std()) < 2e-3
    # Each setting has prepared cases of its own.
    assert len(list((tmp_path / "cache").glob("*.pt"))) == 2


def test_case_without_tumour_has_brain_to_centre_crops_on(tmp_path):
    [item] = prepared([write_case(tmp_path, label=np.zeros((8, 9, 10), "uint8"))], tmp_path / "cache")
    assert torch.equal(item["tumour"], item["brain"]) and len(item["brain"]) == 4 * 5 * 6


def test_cache_holds_no_more_than_its_items(tmp_path):
    """Of a brain of 28 ** 3 voxels every second is kept as a centre; torch would write all of them with a view."""
    shape = (32, 32, 32)
    case = write_case(tmp_path, modalities=("T1",), T1=volume(shape=shape), label=np.zeros(shape, "uint8"))
    [item] = prepared([case], tmp_path / "cache")
    assert len(item["brain"]) == 28**3 // 2
    [file] = (tmp_path / "cache").glob("*.pt")
    # Image float16, label uint8, centres int64, for both kinds of crops the same.
    assert 0 <= file.stat().st_size - 28**3 * (2 + 1 + 8 / 2) < 4000


def test_orientation_and_spacing(tmp_path):
    """The same head, stored along other axes, is prepared to the same arrays."""
    values, label = np.arange(1, 61, dtype="int16").reshape(3, 4, 5), np.zeros((3, 4, 5), "uint8")
    label[0, 1, 2] = 2
    lps = write_case(tmp_path, "lps", ("T1",), affine=np.diag([-1, -2, 3, 1]), T1=values, label=label)
    turned = np.array([[0, 0, 1, 0], [0, 2, 0, 0], [3, 0, 0, 0], [0, 0, 0, 1]])  # axes: superior, anterior, right
    stored = [np.ascontiguousarray(array.transpose(2, 1, 0)[:, ::-1, ::-1]) for array in (values, label)]
    sar = write_case(tmp_path, "sar", ("T1",), affine=turned, T1=stored[0], label=stored[1])
    first, second = prepared([lps, sar], tmp_path / "cache")
    assert torch.equal(first["image"], second["image"]) and torch.equal(first["label"], second["label"])
    assert first["spacing"].tolist() == second["spacing"].tolist() == [1, 2, 3]


def test_cases_of_several_subsets_keep_their_order(tmp_path):
    cases = [
        write_case(tmp_path, name, modalities)
        for name, modalities in zip("abc", (("T1",), ("T1", "T2"), ("T1",)), strict=True)
    ]
    save(cases[2].images["T1"], volume(shape=(8, 9, 12)))
    save(cases[2].label, np.zeros((8, 9, 12), "uint8"))
    shapes = [tuple(item["image"].shape) for item in prepared(cases, tmp_path / "cache")]
    assert shapes == [(1, 4, 5, 6), (2, 4, 5, 6), (1, 4, 5, 8)]


def test_cache_is_used_private_and_follows_changes(tmp_path):
    cache = tmp_path / "cache"
    case = write_case(tmp_path, modalities=("T1",))
    [first] = prepared([case], cache)
    [file] = cache.glob("*.pt")
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700 and "case" not in file.name

    times = file.stat().st_mtime_ns
    [again] = prepared([case], cache)
    assert all(torch.equal(first[key], again[key]) for key in first) and file.stat().st_mtime_ns == times

    changed = volume()
    changed[5, 5, 5] = 900
    save(case.images["T1"], changed)
    [other] = prepared([case], cache)
    assert not torch.equal(other["image"], first["image"]) and len(list(cache.glob("*.pt"))) == 2


def test_what_counts_is_the_content(tmp_path):
    """A case that is touched, or moved and renamed, finds what was prepared from it."""
    case = write_case(tmp_path, "first", modalities=("T1", "T2"))
    prepared([case], tmp_path / "cache")
    os.utime(case.images["T1"], (1, 1))
    moved = write_case(tmp_path, "second", modalities=("T1", "T2"))
    for modality, file in case.images.items():
        moved.images[modality].write_bytes(file.read_bytes())
    moved.label.write_bytes(case.label.read_bytes())
    prepared([case, moved], tmp_path / "cache")
    assert len(list((tmp_path / "cache").glob("*.pt"))) == 1
    # The same files as other modalities are another case.
    swapped = Case(
        "third", {"T1": case.images["T2"], "FLAIR": case.images["T1"]}, case.label, convention="brats", task=BRATS
    )
    prepared([swapped], tmp_path / "cache")
    assert len(list((tmp_path / "cache").glob("*.pt"))) == 2


@pytest.mark.parametrize("left", [0, 100, -100])
def test_damaged_cache_is_made_again(tmp_path, left):
    case = write_case(tmp_path, modalities=("T1",))
    [first] = prepared([case], tmp_path / "cache")
    [file] = (tmp_path / "cache").glob("*.pt")
    content = file.read_bytes()
    file.write_bytes(content[:left])
    [again] = prepared([case], tmp_path / "cache")
    assert torch.equal(first["image"], again["image"])
    assert len(file.read_bytes()) == len(content)


def test_cache_that_cannot_be_written(tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(DataError, match="FEDMEPD_CACHE") as error:
        PreparedCases([write_case(tmp_path)], tmp_path / "cache")
    assert str(tmp_path) not in error.value.public


@pytest.mark.parametrize("when", ["before", "after"])
def test_file_that_vanishes(tmp_path, when):
    case = write_case(tmp_path, affine=LPS)
    data = PreparedCases([case], tmp_path / "cache") if when == "after" else None
    case.images["T2"].unlink()
    with pytest.raises(DataError, match="case_t2.nii.gz was there when the run started") as error:
        (data or PreparedCases([case], tmp_path / "cache"))[0]
    assert "t2" not in error.value.public


def test_file_that_is_damaged_after_the_start(tmp_path):
    case = write_case(tmp_path)
    data = PreparedCases([case], tmp_path / "cache")
    case.images["T2"].write_bytes(b"no image")
    with pytest.raises(DataError, match="case case cannot be read any more") as error:
        data[0]
    assert "case case" not in error.value.public


def test_full_disk(tmp_path, monkeypatch):
    data = PreparedCases([write_case(tmp_path)], tmp_path / "cache")

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(DataError, match="No space left on device.*FEDMEPD_CACHE"):
        data[0]
    assert not list((tmp_path / "cache").glob("*.pt*"))


def test_a_folder_for_temporary_files_that_takes_nothing(tmp_path, monkeypatch):
    """Prepared cases pass through it: the message names it beside the cache, with the free space of both."""
    data = PreparedCases([write_case(tmp_path)], tmp_path / "cache")
    monkeypatch.setattr(tempfile, "tempdir", "/proc")
    with pytest.raises(DataError, match="cache, which has .* MB free, by way of /proc, which has 0 MB.*TMPDIR"):
        data[0]
