"""What a method keeps on disk from round to round."""

from __future__ import annotations

import pytest
import torch

from fedmepd.errors import CheckpointError
from fedmepd.federation.open_round import TensorStore
from fedmepd.storage import save_tensors


def test_kept_until_others_are_needed(tmp_path) -> None:
    store = TensorStore(tmp_path)
    for number in (1, 2):
        store.keep("site-1.decoder", number, {"w": torch.full((2,), float(number))})
        store.keep("site.2.decoder", number, {"w": torch.zeros(2)})
    # As often as one likes, by another object too, and beside what stays for a round.
    store.save("site-1", {"w": torch.ones(1)})
    store.clear()
    for _ in range(2):
        assert TensorStore(tmp_path).kept("site-1.decoder", 1)["w"].tolist() == [1, 1]
    store.forget_others({("site-1.decoder", 2), ("site.2.decoder", 1)})
    assert store.kept("site-1.decoder", 2)["w"].tolist() == [2, 2]
    assert store.kept("site.2.decoder", 1)["w"].tolist() == [0, 0]
    for name, number in (("site-1.decoder", 1), ("site.2.decoder", 2)):
        with pytest.raises(CheckpointError):
            store.kept(name, number)


def test_what_a_killed_process_left_is_removed(tmp_path) -> None:
    store = TensorStore(tmp_path)
    store.keep("a", 1, {"w": torch.zeros(1)})
    save_tensors(tmp_path / "kept" / ".b.00001.pt.0.part", {})
    store.forget_others({("a", 1)})
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["a.00001.pt"]


def test_nothing_kept_is_nothing_to_forget(tmp_path) -> None:
    TensorStore(tmp_path / "new").forget_others(set())


def test_a_sites_tensors_come_back_once_as_they_were(tmp_path) -> None:
    store = TensorStore(tmp_path)
    tensors = {
        "decoder.a.weight": torch.arange(6.0).view(2, 3),
        "transposed": torch.arange(6.0).view(2, 3).t(),
        "half": torch.tensor([1.5, -2.0], dtype=torch.float16),
        "none": torch.zeros(0, 4),
        "number": torch.tensor(3.0, dtype=torch.float64),
    }
    store.save("site-1", {"others": torch.zeros(9)})
    store.save("site-1", tensors)
    found = store.load("site-1")
    assert list(found) == list(tensors)
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor)
    # They may be changed.
    found["decoder.a.weight"].zero_()
    assert not list(tmp_path.glob("*.npy"))
