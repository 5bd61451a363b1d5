import hashlib
import os

import nibabel
import numpy as np
import pytest

from fedmepd.data import phantom
from fedmepd.data.layouts import find_dataset
from fedmepd.data.phantom import case_names, cases_without_enhancement, phantom_case, scanner
from fedmepd.data.phantom_cohorts import ensure_site
from fedmepd.errors import DataError
from fedmepd.tasks.brats import BRATS

SEED = 3


@pytest.fixture(scope="module")
def cases():
    """Two cases of each of four sites, by site and name."""
    return {
        (site, name): phantom_case(site, name, SEED)
        for site in ("site-1", "site-4", "site-8", "fusion")
        for name in (case_names(site)[0], sorted(cases_without_enhancement(site, SEED))[0])
    }


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(phantom, "SITE_CASES", 3)


def digest(folder):
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def test_values(cases):
    for images, label in cases.values():
        brain = images["T1"] > 0
        assert list(images) == ["FLAIR", "T1ce", "T1", "T2"]
        for image in images.values():
            assert image.dtype == np.int16 and image.shape == (48, 48, 48)
            assert image.min() == 0 and image.max() > 200
            assert ((image > 0) == brain).all()
        assert label.dtype == np.uint8 and set(np.unique(label)) <= {0, 1, 2, 4}
        assert (label[~brain] == 0).all() and (label == 1).any() and (label == 2).any()
        # A head in the middle of the volume, with a background around it.
        assert 0.15 < brain.mean() < 0.4
        assert not np.concatenate(
            [brain[[0, -1]].ravel(), brain[:, [0, -1]].ravel(), brain[..., [0, -1]].ravel()]
        ).any()


def test_each_modality_carries_what_it_carries_in_patients(cases):
    """Means of each class, relative to the median of healthy tissue, over cases with a class of at least 30 voxels."""
    ratios = {}
    for images, label in cases.values():
        healthy = (images["T1"] > 0) & (label == 0)
        for modality, image in images.items():
            reference = np.median(image[healthy])
            for value in (1, 2, 4):
                if (label == value).sum() >= 30:
                    ratios.setdefault((modality, value), []).append(image[label == value].mean() / reference)
            # Ventricles and furrows: the brightest hundredth of healthy tissue in T2.
            fluid = healthy & (images["T2"] >= np.quantile(images["T2"][healthy], 0.99))
            ratios.setdefault((modality, "fluid"), []).append(image[fluid].mean() / reference)
    mean = {key: np.mean(values) for key, values in ratios.items()}
    necrosis, oedema, enhancing = 1, 2, 4
    assert mean["T1ce", enhancing] > 1.2
    assert mean["T1", enhancing] < 0.85 and abs(mean["T1", enhancing] - mean["T1", oedema]) < 0.1
    assert mean["FLAIR", oedema] > 1.3 and mean["T2", oedema] > 1.3
    assert mean["T1", necrosis] < 0.8 and mean["T1ce", necrosis] < 0.8
    assert mean["T2", "fluid"] > 1.5 and mean["FLAIR", "fluid"] < 0.8


def test_some_cases_have_no_enhancing_tumour(cases):
    for site in phantom.phantom_sites():
        # 15 % of 16 and of 48.
        assert len(cases_without_enhancement(site, SEED)) == (7 if site == "fusion" else 2)
    for (site, name), (_, label) in cases.items():
        assert (label == 4).any() == (name not in cases_without_enhancement(site, SEED))


def test_tumours_vary(cases):
    extents = [(label > 0).sum() for _, label in cases.values()]
    centres = np.array([np.argwhere(label > 0).mean(axis=0) for _, label in cases.values()])
    assert max(extents) > 2 * min(extents)
    # In voxels along every axis.
    assert (centres.std(axis=0) > 3).all()


def test_every_site_has_its_own_scanner():
    scanners = [scanner(site, SEED) for site in phantom.phantom_sites()]
    for field in ("blur", "noise", "gamma", "gain"):
        assert len({str(getattr(device, field)) for device in scanners}) == len(scanners)
    assert scanner("site-1", SEED) == scanners[0] != scanner("site-1", SEED + 1)


def test_a_case_depends_on_seed_site_and_name(cases):
    first = case_names("site-1")[0]
    images, label = cases["site-1", first]
    again = phantom_case("site-1", first, SEED)
    assert all((again[0][modality] == images[modality]).all() for modality in images) and (again[1] == label).all()
    for other in (phantom_case("site-1", first, SEED + 1), phantom_case("site-1", case_names("site-1")[2], SEED)):
        assert (other[1] != label).any()


@pytest.mark.parametrize(
    ("site", "words"),
    [("site-1", ["flair", "t1ce", "t1", "seg"]), ("site-5", ["t1ce", "seg"]), ("site-6", ["t2", "seg"])],
)
def test_files_of_a_site(tmp_path, small, site, words):
    folder = ensure_site(tmp_path / "new", site, SEED)
    assert folder == tmp_path / "new" / site
    found = find_dataset(BRATS, folder).cases
    names = [f"Phantom_{site}_{number:03d}" for number in (1, 2, 3)]
    assert [case.name for case in found] == names
    for case in found:
        assert [file.name for file in case.files] == [f"{case.name}_{word}.nii.gz" for word in words]
        images, label = phantom_case(site, case.name, SEED)
        for modality, file in case.images.items():
            image = nibabel.load(file)
            assert image.get_data_dtype() == np.int16 and image.header.get_zooms() == (3, 3, 3)
            assert nibabel.aff2axcodes(image.affine) == ("L", "P", "S")
            assert (np.asanyarray(image.dataobj) == images[modality]).all()
        assert (np.asanyarray(nibabel.load(case.label).dataobj) == label).all()


def test_same_seed_same_bytes(tmp_path, small):
    first, second, other = (digest(ensure_site(tmp_path / str(n), "site-3", seed)) for n, seed in enumerate((1, 1, 2)))
    assert first == second
    assert all(other[name] != value for name, value in first.items())


def test_made_once(tmp_path, small):
    folder = ensure_site(tmp_path, "site-5", SEED)
    before = {file: (file.stat().st_ino, file.stat().st_mtime_ns) for file in folder.rglob("*")}
    assert ensure_site(tmp_path, "site-5", SEED) == folder
    assert {file: (file.stat().st_ino, file.stat().st_mtime_ns) for file in folder.rglob("*")} == before


def test_failure_leaves_nothing_half_written(tmp_path, small, monkeypatch):
    written = nibabel.save

    def disk_full_at_the_second(image, file):
        if "_002_" in file.name:
            raise OSError(28, "No space left on device")
        written(image, file)

    with monkeypatch.context() as patch:
        patch.setattr(nibabel, "save", disk_full_at_the_second)
        with pytest.raises(DataError, match="No space left.*: set another folder") as error:
            ensure_site(tmp_path, "site-5", SEED, advice=": set another folder")
    assert str(tmp_path) not in error.value.public
    assert [path.name for path in tmp_path.iterdir()] == [".site-5.lock"]

    # What a killed process leaves is cleared away.
    (tmp_path / ".site-5.part" / "Phantom_site-5_009").mkdir(parents=True)
    folder = ensure_site(tmp_path, "site-5", SEED)
    assert sorted(os.listdir(tmp_path)) == [".site-5.lock", "site-5"]
    assert len(find_dataset(BRATS, folder).cases) == 3


@pytest.mark.parametrize("change", ["foreign", "seed", "missing"])
def test_a_folder_of_something_else_is_left_alone(tmp_path, small, change):
    folder, seed = tmp_path / "site-5", SEED
    if change == "foreign":
        (folder / "patient").mkdir(parents=True)
        (folder / "patient" / "t1.nii.gz").write_bytes(b"precious")
    else:
        ensure_site(tmp_path, "site-5", SEED)
        seed += change == "seed"
        if change == "missing":
            (folder / "Phantom_site-5_002" / "Phantom_site-5_002_seg.nii.gz").unlink()
    before = digest(folder)
    with pytest.raises(DataError, match=f"site-5 is not the phantom of site-5 with seed {seed}.*remove that folder"):
        ensure_site(tmp_path, "site-5", seed)
    assert digest(folder) == before


def test_unknown_site(tmp_path):
    with pytest.raises(DataError, match="no phantom of site 'clinic'.*site-1.*FEDMEPD_DATA"):
        ensure_site(tmp_path, "clinic", SEED)
    assert not list(tmp_path.iterdir())
