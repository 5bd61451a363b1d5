"""A method for the tests, whose participants send a tensor that is no change of weights, and get the sites' mean back.

A site sends its number of training cases times what its environment sets, so that a test can make one of them lie.
"""

from __future__ import annotations

import torch

from fedmepd.config import FUSION_SITE
from fedmepd.methods.local import LocalAtServer
from fedmepd.methods.method import AtFusionSite, AtSite, Method
from fedmepd.methods.parts.exact_sum import ExactSum
from fedmepd.methods.parts.selection import EXTRA

NAME = f"{EXTRA}told"
SHAPE = torch.Size((2, 3))


class TellingAtServer(LocalAtServer):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.mean, self.of_fusion = torch.zeros(SHAPE), torch.zeros(SHAPE)

    def send(self, site):
        return {NAME: self.mean}

    def expect_extras(self, owner):
        return {NAME: SHAPE}

    def open(self, round_number):
        self._sum, self._sites = ExactSum(SHAPE), 0

    def take_extras(self, site, extras, cases):
        self._sum.add(extras[NAME])
        self._sites += 1

    def close(self, fuse, round_number):
        self.mean = (self._sum.value() / max(1, self._sites)).float()
        fused = fuse(self.weights, round_number, {NAME: self.mean})
        if fused is not None:
            self.weights, self.of_fusion = fused.weights, fused.extras[NAME]
        return fused

    def figures(self):
        return {FUSION_SITE: {"told": float(self.mean[0, 0])}}

    def state(self):
        return super().state() | {"mean": self.mean, "of_fusion": self.of_fusion}

    def restore(self, state):
        super().restore(state)
        self.mean, self.of_fusion = state["mean"], state["of_fusion"]


class TellingAtSite(AtSite):
    def start(self, network, data):
        self._cases, self._heard = len(data.train), torch.zeros(SHAPE)

    def take_in(self, network, received, round_number):
        self._heard = received[NAME].clone()

    def train(self, training, received):
        training.figures["heard"] = float(self._heard[0, 0])
        training.run(frozen=("encoders.",))

    def leave(self, round_number):
        return {NAME: torch.full(SHAPE, float(self._cases))}

    def state(self):
        return {"heard": self._heard}

    def restore(self, state):
        self._heard = state["heard"]


class TellingAtFusionSite(AtFusionSite):
    def start(self, network, data):
        self._heard = torch.zeros(SHAPE)

    def train(self, training, weights, extras):
        self._heard = extras.get(NAME, torch.zeros(SHAPE))
        training.figures["heard"] = float(self._heard[0, 0])
        training.run()

    def leave(self, round_number):
        return {NAME: self._heard + 1}

    def state(self):
        return {"heard": self._heard}

    def restore(self, state):
        self._heard = state["heard"]


METHOD = Method(
    name="telling",
    title="Telling",
    paper="none",
    shared="a tensor",
    personal="the whole network",
    fusion="trains alone, and tells too",
    model="trained here alone",
    global_model=f"trained at the fusion site ({FUSION_SITE}) alone",
    at_server=TellingAtServer,
    at_site=TellingAtSite,
    at_fusion_site=TellingAtFusionSite,
    figures=lambda task: {"heard": (-1e9, 1e9)},
)
