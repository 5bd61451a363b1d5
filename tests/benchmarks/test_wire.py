from __future__ import annotations

import json

import pytest
import torch
from nvflare.app_opt.pt.decomposers import TensorDecomposer
from nvflare.fuel.utils import fobs

from benchmarks import wire
from fedmepd.federation.exchange import Payload
from fedmepd.flare import translation
from fedmepd.job_settings import make_settings
from fedmepd.networks.network import FedMEPDNet
from fedmepd.tasks.brats import BRATS

RUN = translation.Run("run", make_settings("paper"))
TENSORS = {
    "encoders.T1.a.weight": torch.tensor([1.0, -0.5, 0.25]),
    "decoder.b.weight": torch.tensor([2.0, 0.125]),
    "patience.decoder.b": torch.tensor([0, 7, 255, 1, 1], dtype=torch.uint8),
}


@pytest.fixture(autouse=True)
def tensors_can_be_written():
    fobs.register(TensorDecomposer)


def test_whole_model():
    """The weights of a published checkpoint but for the biases of convolution blocks, which change nothing there."""
    assert wire.whole_model(16) == 38_711_264


def test_bytes_of_a_message():
    written, size = wire.write(translation.task(RUN, Payload(1, TENSORS)))
    assert size.tensors == (3 + 2) * 2 + 5 and size.message == len(written) > size.tensors
    received = translation.payload_of(wire.read(written)).tensors
    assert all(torch.equal(received[key], value) for key, value in TENSORS.items())


def test_contents_add_up_to_the_message():
    parts = wire.contents(translation.task(RUN, Payload(1, TENSORS)))
    assert sum(parts.values()) == wire.write(translation.task(RUN, Payload(1, TENSORS)))[1].message
    assert (parts["tensors: encoders"], parts["tensors: decoder"], parts["tensors: patience"]) == (6, 4, 5)
    assert parts["header: fedmepd.settings"] > 500 and parts["names, types and shapes of tensors"] > 0


def expected_up(modalities: tuple[str, ...], share: float) -> int:
    """Two bytes for every weight of the site's encoders, and of the filters that it shares."""
    numbers = 0
    for key, value in FedMEPDNet(BRATS, modalities, width=4).state_dict().items():
        if key.startswith("encoders."):
            numbers += value.numel()
        elif key.startswith("decoder."):
            filters = len(value)
            numbers += (filters - round(share * filters)) * value[0].numel()
    return 2 * numbers


def check_fusion(rows: list[dict]) -> None:
    """Only what the other side does not hold travels: the method's weights, and up the anchors too."""
    state = FedMEPDNet(BRATS, width=4).state_dict()
    segmenting = sum(value.numel() for key, value in state.items() if key.split(".")[0] in ("encoders", "decoder"))
    whole = sum(value.numel() for value in state.values())
    assert whole > segmenting
    numbers = {"fedmepd": segmenting, "fedavg": whole, "local": segmenting, "fusion_only": segmenting}
    size = {"float16": 2, "float32": 4}
    known = [row for row in rows if row["method"] in numbers]
    # FedAvg has no round 0.
    assert len(known) == 2 * (2 + 3 * 3)
    for row in known:
        weights = numbers[row["method"]] * size[row["precision"]]
        up, down = row["up"]["tensors"], row["down"]["tensors"]
        if row["kind"] == "validate" and row["method"] != "fedavg":
            assert up == down == 0
        elif row["kind"] == "validate":
            # The model that is validated is averaged after the fusion training.
            assert up == 0 and down == weights
        else:
            # What these methods' server holds is what the fusion site has sent it.
            kept = row["round"] == 1 and row["method"] in ("local", "fusion_only")
            assert down == (0 if kept else weights), row
            anchors = (up - weights) / size[row["precision"]]
            assert anchors % 60 == 0 and 0 <= anchors / 60 <= 16 and (anchors > 0) == (row["method"] == "fedmepd")
        assert row["up"]["message"] > up and row["down"]["message"] > down


@pytest.mark.slow
def test_bytes_of_methods():
    """A site sends what its method shares, and nothing else: two bytes a weight."""
    found = wire.by_method(4, 16, 3, ["local", "fedper", "fedavg"])
    assert [(row.method, row.round, row.site) for row in found] == [
        (method, number, site)
        for method in ("local", "fedper", "fedavg")
        for number in (1, 2)
        for site in ("site-5", "site-8")
    ]
    for row in found:
        state = FedMEPDNet(BRATS, row.modalities, width=4).state_dict()
        shared = {"local": (), "fedper": ("encoders",), "fedavg": ("encoders", "decoder", "auxiliary")}[row.method]
        assert row.up.tensors == 2 * sum(value.numel() for key, value in state.items() if key.split(".")[0] in shared)


@pytest.mark.slow
def test_bytes_of_every_round(tmp_path, monkeypatch, capsys):
    sites = {"site-5": ("T1ce",), "site-8": ("FLAIR", "T1ce", "T1", "T2")}
    monkeypatch.setattr(wire, "SITES", sites)
    monkeypatch.setattr(wire, "SHARES", (0.0, 0.5, 1.0))
    wire.main(["--quick", "--json", str(tmp_path / "wire.json")])
    report = json.loads((tmp_path / "wire.json").read_text())
    assert report["width"] == 4 and report["whole_model"] == wire.whole_model(4)
    assert [(row["round"], row["personal_share"], row["site"]) for row in report["rows"]] == [
        (number, share, site) for number, share in [(1, 0.0), (2, 0.5), (3, 1.0)] for site in sites
    ]
    decoder = FedMEPDNet(BRATS, width=4).decoder.state_dict()
    filters = sum(len(value) for key, value in decoder.items() if key.endswith(".weight"))
    for row in report["rows"]:
        up, down = row["up"]["tensors"], row["down"]["tensors"]
        assert up == expected_up(sites[row["site"]], row["personal_share"])
        # One byte a filter, and at least one anchor of each level's width, four at most for each class.
        anchors = down - up - filters
        assert anchors % (2 * (4 + 8 + 16 + 32)) == 0 and 1 <= anchors // 120 <= 16
        assert row["up"]["message"] > up and row["down"]["message"] > down
    check_fusion(report["fusion"])
    printed = capsys.readouterr().out
    assert "round 1: validation" in printed and "50% personal" in printed and "target" not in printed


@pytest.mark.parametrize(("size", "verdict"), [(45, "met"), (46, "MISSED")])
def test_targets(size, verdict):
    small = wire.Size(1, 22)
    exchanges = [
        wire.Exchange(1, 0.0, "a", ("T1ce",), small, small),
        wire.Exchange(1, 0.0, "b", ("FLAIR", "T1ce", "T1", "T2"), small, wire.Size(1, size)),
    ]
    full, single = wire._judge(exchanges, whole=100)
    assert full.endswith(f"at most {size}.0%; target 45%: {verdict}")
    assert single.endswith("at most 22.0%; target 22%: met")
