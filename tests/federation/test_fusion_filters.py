"""A privacy filter of the hospital that is the fusion site: server and hospital do not drift apart."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from fedmepd.federation.exchange import FusionReply, FusionTask
from fedmepd.federation.fusion_desk import FusionDesk
from fedmepd.federation.fusion_elsewhere import FusionElsewhere
from fedmepd.federation.fusion_site import FusionSite
from fedmepd.methods.parts.selection import SEGMENTING, parts
from fedmepd.networks.build import build_network
from tests.federation.drive import CPU, make_site
from tests.tiny import never, settings

WITHHELD, NOISY = "encoders.T1.", "decoder.classify.bias"


class Filtered:
    """The way to a fusion site that withholds an encoder and changes one weight; notes what it is sent."""

    def __init__(self, desk: FusionDesk):
        self.desk = desk
        self.sent: list[set[str]] = []

    def __call__(self, task: FusionTask, abort) -> FusionReply:
        self.sent.append(set(task.tensors))
        reply = self.desk.do(task, abort)
        left = {key: value for key, value in reply.tensors.items() if not key.startswith(WITHHELD)}
        if NOISY in left:
            left[NOISY] = left[NOISY] + 0.5
        return replace(reply, tensors=left)


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_what_a_filter_holds_back_or_changes_is_sent_again(precision, tiny, tmp_path) -> None:
    of = settings(fusion={"site": "site-1"}, aggregation={"wire_precision": precision})
    site = FusionSite(of, tiny.data("fusion", of), tmp_path / "fusion", CPU)
    way = Filtered(FusionDesk(site, half_precision=precision == "float16"))
    profile = make_site(tiny, of, tmp_path, "site-1").profile(site.data.counts())
    elsewhere = FusionElsewhere(of, profile, way)
    start = build_network(of).start(of.seed).state_dict()
    weights = {key: value.clone() for key, value in parts(start, SEGMENTING).items()}
    for number in range(2):
        fused = elsewhere.fuse(weights, number, never)
        trained = site.weights()
        for key, value in fused.weights.items():
            if key.startswith(WITHHELD):
                # The global model keeps what it was, though the hospital has trained it.
                assert torch.equal(value, weights[key]) and not torch.equal(value, trained[key])
            elif key == NOISY:
                torch.testing.assert_close(value, trained[key] + 0.5)
            else:
                assert torch.equal(value, trained[key]) and not torch.equal(value, weights[key])
        # What is scored is the global model, and the hospital holds it from then on.
        assert elsewhere.validate(fused.weights, number, never) is not None
        assert all(torch.equal(value, site.weights()[key]) for key, value in fused.weights.items())
        weights = fused.weights
    again = {key for key in weights if key.startswith(WITHHELD)} | {NOISY}
    # The second round trains what the validation has brought.
    assert way.sent == [set(weights), again, set(), again]
