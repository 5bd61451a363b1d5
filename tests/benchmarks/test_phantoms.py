import nibabel
import numpy as np

from benchmarks.phantoms import phantom_data, real_sized_cases
from fedmepd.data.inspection import inspect_cases


def volume(file):
    return np.asanyarray(nibabel.load(file).dataobj)


def test_small_cases_of_a_site(tmp_path):
    data = phantom_data(tmp_path, "site-3", 2)
    assert len(data.train) == 2 and data.modalities == ("FLAIR", "T1ce") and not data.test
    inspect_cases(data.train).require_good()
    for case in data.train:
        assert case.modalities == ("FLAIR", "T1ce")
        assert volume(case.label).shape == (48, 48, 48) and set(np.unique(volume(case.label))) == {0, 1, 2, 4}


def test_real_sized_cases(tmp_path):
    cases = real_sized_cases(tmp_path, 2, brain=(20, 24, 22), volume=(36, 40, 32))
    inspect_cases(cases).require_good()
    assert len(cases) == 2 and not np.array_equal(volume(cases[0].images["T1"]), volume(cases[1].images["T1"]))
    for case in cases:
        assert case.modalities == ("FLAIR", "T1ce", "T1", "T2")
        label = volume(case.label)
        assert label.shape == (36, 40, 32) and set(np.unique(label)) <= {0, 1, 2, 4} and label.any()
        for file in case.images.values():
            image = volume(file)
            assert image.min() == 0 and [np.ptp(axis) + 1 for axis in image.nonzero()] == [20, 24, 22]
            assert not label[image == 0].any()
