"""Import of published checkpoints, against what the authors' network returned with them (algorithm section 5)."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from fedmepd.errors import CheckpointError
from fedmepd.networks.published import import_published
from tests.networks import golden, oracle
from tests.networks.ours import WIDTH, named

MASKS = ["1111", "1110", "0011", "0100"]
LEVELS = (1, 2, 3, 4)


def published(path: Path, **replaced) -> Path:
    """Writes a checkpoint as the authors do, with random weights; a keyword replaces a top-level entry."""
    prototypes = {
        f"x{level}": torch.randn(3, 4, WIDTH * 2 ** (level - 1), generator=torch.Generator().manual_seed(level))
        for level in LEVELS
    }
    content = {
        "round": 7,
        "dice": np.array([0.5, 0.25]),
        "state_dict": oracle.random_state(WIDTH),
        "proto": prototypes,
    }
    torch.save(content | replaced, path)
    return path


@pytest.mark.skipif(not golden.AVAILABLE, reason="the golden numbers are not here")
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("side", ["server", "client"])
def test_golden_numbers(side: str, mask: str, tmp_path: Path) -> None:
    path = golden.FOLDER / "rfnet_w4_client.pth"
    if side == "server":
        # A server's checkpoint has no attention.
        state, _ = golden.checkpoint()
        kept = {key: value for key, value in state.items() if "_attn." not in key}
        path = published(tmp_path / "server.pth", state_dict=kept, proto=None)
    imported = import_published(path)
    assert imported.calibrated == (side == "client")
    numbers = golden.predictions()
    x = numbers["x"][:, golden.parse(mask)]
    with torch.no_grad():
        outputs = imported.network.training_outputs(x, named(mask))
        probabilities = imported.network(x, named(mask))

    def agree(actual: torch.Tensor, name: str) -> None:
        torch.testing.assert_close(actual, numbers[f"{side}_{mask}_{name}"], rtol=0, atol=1e-4)

    agree(probabilities, "pred")
    agree(outputs.segmentation, "pred")
    for level in LEVELS:
        agree(outputs.features[level].mean(dim=(2, 3, 4)), f"feat{level}_mean")
        if mask == "1111":
            agree(outputs.full_size_regions()[level][..., ::4, ::4, ::4], f"prm{level}")
    if mask == "1111":
        agree(outputs.auxiliary[..., ::4, ::4, ::4], "aux")


def test_client(tmp_path: Path) -> None:
    imported = import_published(published(tmp_path / "client.pth"))
    assert (imported.round, imported.calibrated, imported.network.width) == (7, True, WIDTH)
    assert imported.network.modalities == oracle.MODALITIES and not imported.network.training
    # (cluster, class, channel) -> a row for each class and cluster
    prototypes = torch.load(tmp_path / "client.pth", weights_only=False)["proto"]
    for level, rows in imported.network.anchors.items():
        expected = [prototypes[f"x{level}"][cluster, k].tolist() for k in range(4) for cluster in range(3)]
        assert rows.tolist() == expected


def test_server_that_carries_anchors_is_not_calibrated(tmp_path: Path) -> None:
    imported = import_published(
        published(tmp_path / "server.pth", state_dict=oracle.random_state(WIDTH, calibrated=False))
    )
    assert not imported.calibrated and imported.network.calibration is None and not imported.network.anchors


def test_client_before_its_first_anchors_is_not_calibrated(tmp_path: Path) -> None:
    imported = import_published(published(tmp_path / "early.pth", proto=None))
    assert not imported.calibrated and imported.network.calibration is None


def test_weights_of_a_data_parallel_wrapper(tmp_path: Path) -> None:
    wrapped = {f"module.{key}": value for key, value in oracle.random_state(WIDTH).items()}
    plain = import_published(published(tmp_path / "plain.pth")).network.state_dict()
    found = import_published(published(tmp_path / "wrapped.pth", state_dict=wrapped)).network.state_dict()
    assert all(torch.equal(found[key], plain[key]) for key in plain)


class Foreign:
    """Stands for code in a checkpoint."""


def changed(**changes) -> dict:
    """Random weights; ``None`` takes an entry out, a tensor replaces it, with ``__`` for a point in its name."""
    state = oracle.random_state(WIDTH)
    for name, value in changes.items():
        key = name.replace("__", ".")
        if value is None:
            del state[key]
        else:
            state[key] = value
    return state


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ({"state_dict": changed(c1_encoder__e1_c1__conv__weight=None)}, "key c1_encoder.e1_c1.conv.weight is missing"),
        ({"state_dict": None}, "key state_dict is missing"),
        (
            {"state_dict": changed(c4_encoder__e2_c3__conv__weight=None)},
            "nothing in it becomes encoders.T2.levels.2.2.conv.weight",
        ),
        (
            {"state_dict": changed(decoder_fuse__RFM2__short_cut__1__conv__weight=torch.zeros(8, 8, 1, 1, 1))},
            r"decoder.levels.2.fusion.short_cut.1.conv.weight has shape \(8, 8, 1, 1, 1\), "
            r"expected \(8, 8, 3, 3, 3\) at width 4",
        ),
        ({"state_dict": changed(decoder_fuse__extra__weight=torch.zeros(1))}, "unknown key decoder_fuse.extra.weight"),
        ({"proto": {"x1": torch.zeros(3, 4, 4)}}, "key proto.x2 is missing"),
        ({"proto": [torch.zeros(3, 4, 4)]}, "proto is a list: expected anchors by level"),
        ({"proto": {"x1": torch.zeros(65, 4, 4)}}, r"proto.x1 has shape \(65, 4, 4\): expected 1 to 64 clusters"),
        ({"proto": {"x1": torch.zeros(3, 4, 2**20)}}, r"proto.x1 has shape \(3, 4, 1048576\)"),
        ({"proto": {"x1": torch.zeros(4, 4)}}, r"proto.x1 has shape \(4, 4\)"),
        ({"proto": {"x1": torch.zeros(3, 4, 4, dtype=torch.int8)}}, "proto.x1 is torch.int8"),
        ({"proto": {"x1": np.zeros((3, 4, 4), np.int32)}}, "proto.x1 is ndarray"),
        ({"proto": {"x1": [1.0]}}, "proto.x1 is list"),
        ({"state_dict": changed() | {7: torch.zeros(1)}}, "7 is no name of a weight"),
        ({"state_dict": changed() | {"a\n\x1b[2J": [1]}}, r"a\\n\\x1b\[2J is list, expected floating-point"),
        ({"state_dict": changed() | {"a": torch.zeros(3).to_sparse()}}, "makes torch.*sparse"),
        ({"state_dict": changed(c1_encoder__e1_c1__conv__weight=torch.tensor(4.0))}, "width = 0"),
        (
            {"state_dict": changed(decoder_fuse__RFM1__modal_fusion__0__weight_layer__0__weight=torch.zeros(4))},
            r"RFM1.modal_fusion.0.weight_layer.0.weight has shape \(4,\)",
        ),
        (
            {"state_dict": changed(decoder_fuse__RFM1__modal_fusion__0__weight_layer__0__weight=torch.zeros(4, 7, 1))},
            "becomes decoder.levels.1.fusion.hidden.weight differs in shape from region to region",
        ),
        ({"round": [[7]]}, "its round is a value of type list"),
        ({"round": "7"}, "its round is 7: expected a number of rounds"),
        ({"round": float("inf")}, "its round is inf: expected a number of rounds"),
        ({"round": torch.ones(2)}, "its round is a value of type Tensor"),
    ],
)
def test_faults(content: dict, text: str, tmp_path: Path) -> None:
    path = published(tmp_path / "faulty.pth", **content)
    with pytest.raises(CheckpointError, match=text) as error:
        import_published(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("fault", ["absent", "empty", "truncated", "text", "foreign object", "list"])
def test_files_that_cannot_be_read(fault: str, tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    if fault == "truncated":
        published(path)
        path.write_bytes(path.read_bytes()[:-5000])
    elif fault == "foreign object":
        published(path, dice=Foreign())
    elif fault == "list":
        torch.save([1, 2], path)
    elif fault != "absent":
        path.write_bytes({"empty": b"", "text": b"no checkpoint at all"}[fault])
    with pytest.raises(CheckpointError) as error:
        import_published(path)
    message = str(error.value)
    assert str(path) in message and "published" in message and "\n" not in message and "\x1b" not in message
    # torch's own advice would run whatever is in the file.
    assert "weights_only" not in message


def test_code_in_a_checkpoint_never_runs(tmp_path: Path) -> None:
    class Attack:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    (tmp_path / "attack.pth").write_bytes(pickle.dumps({"state_dict": Attack()}, protocol=2))
    published(tmp_path / "zip.pth", dice=Attack())
    for name in ("attack.pth", "zip.pth"):
        with pytest.raises(CheckpointError):
            import_published(tmp_path / name)
    assert not (tmp_path / "ran").exists()
