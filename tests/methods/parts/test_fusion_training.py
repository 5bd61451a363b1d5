from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from fedmepd.errors import Aborted, DataError
from fedmepd.methods.method import AtFusionSite
from fedmepd.methods.parts.case_vectors import CaseVectorCollector
from fedmepd.methods.parts.fusion_training import FusionTrainer
from fedmepd.networks.network import FedMEPDNet
from fedmepd.tasks.brats import BRATS
from fedmepd.training.round import RoundTraining
from tests.tiny import COUNTS, MODALITIES, never, settings

CPU = torch.device("cpu")


def train(trainer: FusionTrainer, state=None, round_number: int = 1, direct=RoundTraining.run, **options):
    """Returns the weights after a round."""
    trainer.train(trainer.state() if state is None else state, round_number, direct, **{"abort": never} | options)
    return trainer.state()


def trainer_of(of=None, data=None, tiny=None) -> FusionTrainer:
    data = data or tiny.data("fusion")
    of = of or settings()
    return FusionTrainer(of, data, AtFusionSite(of, print).cases(data), CPU)


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def test_starts_with_the_networks_own_start(tiny) -> None:
    trainer = trainer_of(settings(seed=3), tiny=tiny)
    assert equal(trainer.state(), FedMEPDNet(BRATS, width=4).start(3).state_dict())
    assert trainer.cases == COUNTS["fusion"]["train"]


def test_same_seed_and_round_give_the_same_bits(tiny) -> None:
    results = {}
    for name, seed, round_number in [("once", 0, 1), ("again", 0, 1), ("other round", 0, 2), ("other seed", 1, 1)]:
        trainer = trainer_of(settings(seed=seed), tiny=tiny)
        # Whatever random numbers were drawn before.
        torch.rand(7)
        results[name] = train(trainer, FedMEPDNet(BRATS, width=4).start(0).state_dict(), round_number)
    assert equal(results["once"], results["again"])
    assert not equal(results["once"], results["other round"]) and not equal(results["once"], results["other seed"])


def test_unnamed_weights_and_the_optimizer_stay(tiny) -> None:
    """The auxiliary decoder is the fusion site's own; Adam's averages go on from round to round."""
    trainer = trainer_of(tiny=tiny)
    first = train(trainer, round_number=0)
    auxiliary = {key: value for key, value in first.items() if key.startswith("auxiliary.")}
    start = {
        key: value for key, value in FedMEPDNet(BRATS, width=4).start(0).state_dict().items() if key not in auxiliary
    }
    seen: list[dict] = []
    hook = trainer.network.decoder.register_forward_pre_hook(lambda *_: seen.append(trainer.state()))
    train(trainer, start)
    hook.remove()
    assert equal({key: seen[0][key] for key in auxiliary}, auxiliary)
    assert equal({key: seen[0][key] for key in start}, start)
    steps = {int(state["step"]) for state in trainer.optimizer.state.values()}
    assert steps == {2 * len(trainer.batches)}


def test_class_vectors_of_every_case(tiny) -> None:
    """Round 2 of one case: its vectors are means of the features of the network before the step."""
    data = tiny.data("fusion")
    data = replace(data, train=data.train[:1])
    of = settings(training={"batch": 1})
    trainer = trainer_of(of, data)
    [batch] = trainer.batches.epoch(2)
    outputs = FedMEPDNet(BRATS, width=4).start(0).train().training_outputs(batch.images, batch.modalities)
    collector = CaseVectorCollector()
    train(trainer, round_number=2, direct=lambda training: training.run(observe=collector.observe))
    [(case, vectors)] = collector.vectors.items()
    assert case == 0
    for k in range(4):
        inside = batch.label[0] == k
        assert bool(vectors.there[k]) == bool(inside.any())
        for level in (1, 2, 3, 4) if inside.any() else ():
            feature = outputs.features[level][0]
            for axis in (1, 2, 3):
                feature = feature.repeat_interleave(2 ** (level - 1), dim=axis)
            expected = feature[:, inside].mean(dim=1).detach()
            torch.testing.assert_close(vectors.by_level[level][k], expected, rtol=1e-4, atol=1e-5)
    train(trainer_of(tiny=tiny), direct=lambda training: training.run(observe=collector.observe))
    assert sorted(collector.vectors) == [0, 1, 2]


def subsets_trained_on(tiny, epochs: int, dropout: bool) -> list[tuple[str, ...]]:
    """The modalities whose encoders ran, step by step."""
    of = settings(training={"batch": 1, "fusion_epochs": epochs})
    trainer = trainer_of(of, tiny=tiny)
    ran: list[str] = []
    subsets: list[tuple[str, ...]] = []
    for name, encoder in trainer.network.encoders.items():
        encoder.register_forward_hook(lambda *_, name=name: ran.append(name))

    def finish_step(step: int, loss: float) -> None:
        subsets.append(tuple(ran))
        ran.clear()

    def direct(training: RoundTraining) -> None:
        training.run(choose_modalities=training.modality_dropout() if dropout else None)

    train(trainer, direct=direct, progress=finish_step)
    return subsets


def test_modality_dropout_trains_on_subsets(tiny) -> None:
    subsets = subsets_trained_on(tiny, 6, True)
    assert len(subsets) == 18 and () not in subsets
    # Each of the fifteen is as likely as any other: eighteen draws are expected to find eleven of them.
    assert len(set(subsets)) >= 8 and {len(subset) for subset in subsets} >= {1, 2, 3}
    assert subsets_trained_on(tiny, 1, True) == subsets[:3]
    assert set(subsets_trained_on(tiny, 1, False)) == {MODALITIES["fusion"]}


def test_no_case_with_all_modalities(tiny) -> None:
    data = tiny.data("fusion")
    cases = [
        replace(case, images={name: file for name, file in case.images.items() if name != "T1"}) for case in data.train
    ]
    with pytest.raises(DataError, match="no training case with all of FLAIR, T1ce, T1, T2: add cases") as error:
        trainer_of(data=replace(data, train=cases))
    assert error.value.public == "the fusion site has no training case with all of FLAIR, T1ce, T1, T2"


def test_cases_without_all_modalities_are_left_out(tiny) -> None:
    data = tiny.data("fusion")
    partial = replace(data.train[0], images={"T2": data.train[0].images["T2"]})
    trainer = trainer_of(data=replace(data, train=[partial, *data.train[1:]]))
    assert trainer.cases == COUNTS["fusion"]["train"] - 1


def test_abort(tiny) -> None:
    with pytest.raises(Aborted):
        train(trainer_of(tiny=tiny), abort=lambda: True)
