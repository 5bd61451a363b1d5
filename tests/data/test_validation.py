import os

import nibabel
import numpy as np
import pytest

from fedmepd.data.cases import Case
from fedmepd.data.validation import check_cases
from fedmepd.errors import DataError
from tests.data.files import LPS, SHAPE, save, tumour, volume, write_case


def fault(cases, **options):
    with pytest.raises(DataError) as error:
        check_cases(cases, **options)
    return error.value


def test_good_cases_pass(tmp_path):
    slightly_off = LPS.copy()
    slightly_off[0, 3] = 0.001
    good = [
        write_case(tmp_path, "a"),
        write_case(tmp_path, "b", modalities=("T2",), label=np.zeros(SHAPE, "uint8")),
        write_case(tmp_path, "c", label=tumour().astype("float32")),
    ]
    save(good[0].images["T1"], volume(), slightly_off)
    # A few negative voxels are what interpolation leaves.
    around = volume()
    around[0, 0, :5] = -3
    save(good[0].images["T2"], around)
    check_cases(good)


def with_value(where, value, dtype="float32"):
    made = volume(dtype=dtype)
    made[where] = value
    return made


@pytest.mark.parametrize(
    ("replaced", "file", "text", "public"),
    [
        ({"label": None}, "case", "has no label", "no label (1)"),
        (
            {"label": np.where(tumour() == 4, 5, tumour())},
            "_seg",
            "label values 5: expected 0, 1, 2, 3, 4",
            "unknown label",
        ),
        ({"label": tumour() / 2}, "_seg", "label values 0.5", "unknown label value (1)"),
        ({"label": with_value((0, 0, 0), np.nan) * 0}, "_seg", "label values nan", "unknown label value (1)"),
        ({"T1": with_value((4, 4, 4), np.nan)}, "_t1.", "NaN or infinity", "NaN or infinity in an image (1)"),
        ({"T2": with_value((0, 0, 0), np.inf)}, "_t2.", "NaN or infinity", "NaN or infinity in an image (1)"),
        ({"FLAIR": volume(0)}, "_flair", "the value 0 everywhere", "constant image (1)"),
        ({"T1": volume()[..., None]}, "_t1.", "(8, 9, 10, 1): expected one 3-D volume", "not 3-D (1)"),
        ({"T2": volume(shape=(8, 9, 11))}, "_t2.", "shape (8, 9, 11)", "different shapes within a case (1)"),
        ({"label": tumour((9, 9, 9))}, "_seg", "shape (9, 9, 9)", "different shapes within a case (1)"),
        ({"T1ce": volume(dtype="float32") - 105}, "_t1ce", "not normalised", "negative intensities (1)"),
    ],
)
def test_fault_names_the_file(tmp_path, replaced, file, text, public):
    error = fault([write_case(tmp_path, "case", **replaced)])
    assert file in str(error) and text in str(error)
    assert public in error.public and str(tmp_path) not in error.public and "nii" not in error.public


def test_affine_of_another_grid(tmp_path):
    case = write_case(tmp_path, "case")
    save(case.images["T1"], volume(), LPS * 1.1)
    error = fault([case])
    assert "case_t1.nii.gz has another affine than case_flair.nii.gz" in str(error)
    assert "different affines within a case (1)" in error.public


def damage(path, kind):
    content = path.read_bytes()
    path.write_bytes({"truncated": content[: len(content) // 2], "empty": b"", "text": b"no image" * 100}[kind])


@pytest.mark.parametrize("kind", ["truncated", "empty", "text"])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_damaged_file(tmp_path, kind, suffix):
    case = write_case(tmp_path, "case")
    noise = np.random.default_rng(0).integers(1, 1000, SHAPE).astype("int16")
    image = save(tmp_path / "case" / f"other_t1{suffix}", noise)
    damage(image, kind)
    error = fault([Case("case", case.images | {"T1": image}, case.label)])
    assert f"other_t1{suffix} cannot be read as NIfTI" in str(error)
    assert error.public == "the site's data cannot be used: unreadable file (1)"


def test_file_behind_a_broken_link(tmp_path):
    case = write_case(tmp_path, "case")
    case.label.unlink()
    case.label.symlink_to(tmp_path / "gone.nii.gz")
    assert "case_seg.nii.gz cannot be read" in str(fault([case], cache=tmp_path / "cache"))


def test_no_image(tmp_path):
    error = fault([write_case(tmp_path, "case", modalities=())])
    assert "case case has no image: expected file names with one of the words flair, fla, t2f, t1ce" in str(error)
    assert error.public == "the site's data cannot be used: no image (1)"


def test_label_is_needed_only_if_asked_for(tmp_path):
    case = write_case(tmp_path, "case", label=None)
    check_cases([case], labelled=False)
    assert "no label" in str(fault([case], labelled=True))


def test_all_faults_are_told_and_the_first_twenty_shown(tmp_path):
    bad = [write_case(tmp_path, f"case-{number:02d}", ("T1",), label=None) for number in range(22)]
    error = fault(bad)
    assert error.public == "the site's data cannot be used: no label (22)"
    assert "22 faults" in str(error) and "case-19" in str(error) and "case-20" not in str(error)
    assert str(error).endswith("and 2 more")


def test_files_that_passed_are_not_read_again(tmp_path, monkeypatch):
    cases, cache = [write_case(tmp_path, "case")], tmp_path / "cache"
    check_cases(cases, cache=cache)
    with monkeypatch.context() as patch:
        patch.setattr(nibabel, "load", lambda path: pytest.fail(f"{path} was read again"))
        check_cases(cases, cache=cache)
    assert not any("case" in file.name for file in cache.rglob("*"))

    stat = cases[0].images["T1"].stat()
    damage(cases[0].images["T1"], "text")
    os.utime(cases[0].images["T1"], ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert "case_t1.nii.gz" in str(fault(cases, cache=cache))
    assert "case_t1.nii.gz" in str(fault(cases, cache=cache))


def test_cache_that_cannot_be_written(tmp_path):
    (tmp_path / "cache").write_text("a file")
    error = fault([write_case(tmp_path, "case")], cache=tmp_path / "cache")
    assert str(tmp_path / "cache") in str(error) and str(tmp_path) not in error.public
