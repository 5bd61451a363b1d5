"""The fusion decoder's last step."""

import torch

from fedmepd.networks.network import FedMEPDNet
from fedmepd.tasks.brats import BRATS


def test_classes_are_decided_in_full_precision():
    """Of two classes whose logits differ by less than bfloat16 has digits, the larger one is found."""
    network = FedMEPDNet(BRATS, ("T1",), width=4).eval()
    with torch.no_grad():
        network.decoder.classify.weight.zero_()
        network.decoder.classify.bias.copy_(torch.tensor([4.0, 4.001, 0.0, 0.0]))
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        probabilities = network(torch.randn(1, 1, 16, 16, 16), ("T1",))
    assert probabilities.dtype == torch.float32
    assert (probabilities[0, 1] > probabilities[0, 0]).all()
