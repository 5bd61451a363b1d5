import shutil
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from fedmepd.config import FUSION_SITE
from fedmepd.data.batches import TrainingBatches, evaluation_cases
from fedmepd.data.inspection import inspect_cases
from fedmepd.data.layouts import find_dataset
from fedmepd.data.manifest import make_manifest, write_manifest
from fedmepd.data.phantom import RECIPE
from fedmepd.data.site import open_fusion_data, open_site_data
from fedmepd.errors import DataError
from fedmepd.job_settings import make_settings
from fedmepd.site_settings import SitePrivacy, SiteSettings
from fedmepd.tasks.brats import BRATS
from tests.data.files import save, volume, write_case
from tests.data.phantoms import stand_in

REAL = Path(__file__).parents[3] / "shared" / "real"


@pytest.fixture
def local(tmp_path):
    return SiteSettings(data=tmp_path / "data", cache=tmp_path / "cache")


@pytest.mark.parametrize(
    ("site", "modalities", "counts"),
    [
        ("site-2", ("FLAIR", "T1", "T2"), {"train": 8, "validation": 2, "test": 6}),
        ("fusion", ("FLAIR", "T1ce", "T1", "T2"), {"train": 24, "validation": 6, "test": 18}),
    ],
)
def test_phantom_site(tmp_path, site, modalities, counts):
    folder = stand_in(tmp_path / "phantoms" / f"recipe-{RECIPE}-seed-5", site, 5)
    data = open_site_data(site, make_settings("phantom", {"seed": 5}), SiteSettings(cache=tmp_path))
    assert (data.name, data.modalities, data.source, data.counts()) == (site, modalities, "phantom", counts)
    assert data == open_site_data(site, make_settings("phantom", {"seed": 5}), SiteSettings(cache=tmp_path))
    assert all(folder in file.parents for case in data.train for file in case.files)


@pytest.mark.parametrize("own_folder", [False, True])
def test_data_folder_of_all_sites_or_of_one(tmp_path, local, own_folder):
    folder = local.data if own_folder else local.data / "clinic"
    write_case(folder, "a", ("T2", "FLAIR"))
    write_case(folder, "b", ("T1",))
    if not own_folder:
        write_case(local.data / "other", "c")
    data = open_site_data("clinic", make_settings("phantom"), local)
    assert data.modalities == ("FLAIR", "T1", "T2") and data.source == "folder"
    assert data.counts() == {"train": 1, "validation": 0, "test": 1}
    assert {case.name: case.modalities for case in data.train + data.test} == {"a": ("FLAIR", "T2"), "b": ("T1",)}


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (None, "data does not exist"),
        ((), "data has no sub-folder clinic and no case in it: expected one sub-folder per case"),
        (("clinic",), "clinic has no case in it"),
        # Other sites' cases are not taken for this one's.
        (("other/a",), "data has no sub-folder clinic and no case in it"),
    ],
)
def test_no_case(local, made, text):
    if made is not None:
        local.data.mkdir()
        for folder in made:
            (local.data / folder).mkdir(parents=True)
            if "/" in folder:
                (local.data / folder / "t1.nii.gz").touch()
    with pytest.raises(DataError, match=text) as error:
        open_site_data("clinic", make_settings("phantom"), local)
    assert "clinic" in error.value.public and str(local.data) not in error.value.public


def test_no_case_but_a_link_to_nothing(local):
    """As where a disk is not there: the link is named, at the site alone."""
    (local.data / "clinic").mkdir(parents=True)
    (local.data / "clinic" / "patients").symlink_to("/disk/gone")
    with pytest.raises(DataError, match="clinic/patients: a link to /disk/gone, which is not there") as error:
        open_site_data("clinic", make_settings("phantom"), local)
    assert error.value.public == "the data folder of clinic has no case in it"


@pytest.mark.parametrize("apart", [False, True])
def test_sites_on_one_machine_do_not_have_the_same_patients(local, apart):
    """Cases that lie in the folder itself would be those of every site, and of fusion training."""
    write_case(local.data / "clinic" if apart else local.data, "a", ("T1",))
    write_case(local.data / "clinic" if apart else local.data, "b", ("T1",))
    settings, together = make_settings("paper"), local.for_one_machine()
    assert open_site_data("clinic", settings, local).counts()["train"] == 1
    if apart:
        assert open_site_data("clinic", settings, together).counts()["train"] == 1
        return
    for name, open_data in (("clinic", open_site_data), (FUSION_SITE, open_fusion_data)):
        with pytest.raises(DataError, match=f"data holds cases of its own, and no sub-folder {name}") as error:
            open_data("" if name == FUSION_SITE else name, settings, together)
        assert str(local.data) not in error.value.public


def test_no_data_folder_and_no_phantom_allowed(tmp_path):
    with pytest.raises(DataError, match="clinic has no data folder: set FEDMEPD_DATA"):
        open_site_data("clinic", make_settings("paper"), SiteSettings(cache=tmp_path))
    assert not list(tmp_path.iterdir())


def test_faults_are_found_before_training(local):
    write_case(local.data, "patient-7", T1=volume(0))
    with pytest.raises(DataError, match="patient-7_t1.nii.gz holds the value 0 everywhere") as error:
        open_site_data("clinic", make_settings("paper"), local)
    assert error.value.public == "the site's data cannot be used: constant image (1)"


def test_cases_without_a_label_do_not_train(local):
    write_case(local.data, "a", ("T1",))
    write_case(local.data, "b", ("T1", "T2"), label=None)
    told = []
    data = open_site_data("clinic", make_settings("paper"), local, told.append)
    assert data.counts() == {"train": 1, "validation": 0, "test": 0}
    assert [case.name for case in data.unlabelled] == ["b"] and data.modalities == ("T1",)
    assert told == ["cases with a label: 1; without one, so left out of training and tests: 1"]
    shutil.rmtree(local.data / "a")
    with pytest.raises(DataError, match="has no case with a label") as error:
        open_site_data("clinic", make_settings("paper"), local)
    assert error.value.public == "no case of clinic has a label"


def test_warnings_are_logged(local):
    write_case(local.data, "a", ("T1",), affine=np.diag([-1, -1, 7, 1]))
    told = []
    open_site_data("clinic", make_settings("paper"), local, told.append)
    assert told == ["voxels of another size than the task's (1)", "unusual voxel size (2)"]


def initialise(folder, **parts):
    """Writes a manifest that gives each case a part."""
    cases = inspect_cases(find_dataset(BRATS, folder, manifest=False).cases).cases
    digests = {path: sha256(path.read_bytes()).hexdigest() for case in cases for path in case.files}
    write_manifest(folder, make_manifest(BRATS, folder, cases, parts, digests))


def test_a_manifest_decides_what_trains_and_tests(local):
    for name in "abcd":
        write_case(local.data, name, ("T1", "T2") if name == "a" else ("T1",))
    initialise(local.data, a="test", b="train", c="train", d="validation")
    write_case(local.data, "newcomer")
    for seed in range(3):
        data = open_site_data("clinic", make_settings("paper", {"seed": seed}), local)
        named = [[case.name for case in part] for part in (data.train, data.validation, data.test)]
        assert named == [["b", "c"], ["d"], ["a"]]


@pytest.mark.parametrize("what", ["changed", "gone", "link"])
def test_files_that_are_not_those_of_the_manifest(tmp_path, local, what):
    """A link that was put in a file's place leads nowhere: its content is not what the manifest pins."""
    write_case(local.data, "a", ("T1",))
    initialise(local.data, a="train")
    open_site_data("clinic", make_settings("paper"), local)
    file = local.data / "a" / "a_t1.nii.gz"
    if what == "changed":
        save(file, volume(7))
    else:
        file.unlink()
    if what == "link":
        file.symlink_to(save(tmp_path / "elsewhere.nii.gz", volume(8)))
    with pytest.raises(DataError, match="a_t1.nii.gz (has changed|is missing).*fedmepd data init") as error:
        open_site_data("clinic", make_settings("paper"), local)
    assert "t1" not in error.value.public


def test_a_link_of_the_manifests_leads_elsewhere(tmp_path, local):
    write_case(local.data, "a", ("T1",))
    initialise(local.data, a="train")
    file = local.data / "a" / "a_t1.nii.gz"
    file.rename(tmp_path / "elsewhere.nii.gz")
    file.symlink_to(tmp_path / "elsewhere.nii.gz")
    assert open_site_data("clinic", make_settings("paper"), local).counts()["train"] == 1


@pytest.mark.skipif(not REAL.is_dir(), reason=f"no real cases in {REAL}")
def test_real_cases_arranged_as_sites(tmp_path):
    """Two patients at the fusion site; one at a site that has FLAIR and T2 alone, where no tumour enhances."""
    shutil.copytree(REAL, tmp_path / "data" / "fusion")
    for word in ("fla", "t2", "seg"):
        copy = tmp_path / "data" / "site-1" / "TCGA-DU-7294" / f"{word}.nii.gz"
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REAL / "TCGA-DU-7294" / copy.name, copy)
    settings = make_settings("phantom", {"training": {"crop": 48}})
    local = SiteSettings(data=tmp_path / "data", cache=tmp_path / "cache")

    fusion = open_site_data("fusion", settings, local)
    assert fusion.counts() == {"train": 1, "validation": 0, "test": 1}
    assert fusion.modalities == ("FLAIR", "T1ce", "T1", "T2")

    site = open_site_data("site-1", settings, local)
    assert (site.modalities, site.counts()) == (("FLAIR", "T2"), {"train": 1, "validation": 0, "test": 0})
    [batch] = TrainingBatches(site.train, settings, ("site-1",), site.cache).epoch(1)
    assert batch.images.shape == (1, 2, 48, 48, 48) and 3 not in batch.label
    [case] = evaluation_cases(site.train, settings, site.cache)
    assert case.spacing == (1, 1, 1) and set(case.label.unique().tolist()) == {0, 1, 2}
    brain = case.images[0] != 0
    for image, inside in zip(case.images[0], brain, strict=True):
        assert abs(image[inside].mean()) < 1e-2 and abs(image[inside].std() - 1) < 1e-2
    # A brain of about 1.2 litres, in voxels of a millilitre's thousandth.
    assert 1.0e6 < brain[0].sum() < 1.8e6


def test_privacy_asks_who_the_patients_are(local) -> None:
    """From `P001_a` and `P001_b` nobody can know whether they are one patient: epsilon would be an examination's."""
    for name in ("P001_a", "P001_b", "P002"):
        write_case(local.data, name, ("T1",))
    job = make_settings("paper", {"privacy": {"epsilon": 8}})
    at_site = local.model_copy(update={"privacy": SitePrivacy(epsilon=8)})
    assert open_site_data("clinic", make_settings("paper"), local).counts()["train"] == 1
    for settings, machine in ((job, local), (make_settings("paper"), at_site)):
        with pytest.raises(DataError, match="data init .*data. writes them down") as refused:
            open_site_data("clinic", settings, machine)
        assert "clinic has no manifest" in refused.value.public and str(local.data) not in refused.value.public
        with pytest.raises(DataError) as refused:
            open_fusion_data("", settings, machine)
        assert "fusion has no manifest" in refused.value.public
    # One user's sites on one machine.
    write_case(local.data / "clinic", "a", ("T1",))
    assert open_site_data("clinic", job, local.for_one_machine()).counts()["train"] == 1


def test_privacy_takes_the_hospitals_word_for_who_the_patients_are(local) -> None:
    for name in ("P001_a", "P001_b", "P002"):
        write_case(local.data, name, ("T1",))
    cases = [replace(case, patient=case.name[:4], convention="brats") for case in find_dataset(BRATS, local.data).cases]
    digests = {file: sha256(file.read_bytes()).hexdigest() for case in cases for file in case.files}
    parts = {case.name: "train" for case in cases}
    write_manifest(local.data, make_manifest(BRATS, local.data, cases, parts, digests))
    data = open_site_data("clinic", make_settings("paper", {"privacy": {"epsilon": 8}}), local)
    assert {case.patient for case in data.train} == {"P001", "P002"} and len(data.train) == 3
