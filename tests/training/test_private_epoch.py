"""What one patient can change in a step with differential privacy, on the real network, loss and crops."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from fedmepd.config import PrivacySettings
from fedmepd.data.batches import TrainingBatches
from fedmepd.networks.build import build_network
from fedmepd.privacy.participant import Account, Plan, Privacy, Terms
from fedmepd.training.epoch import forward, plain_loss
from fedmepd.training.round import RoundTraining
from tests import tiny as cohort
from tests.privacy.randomness import Silent, known

NAME = "site-1"
SETTINGS = cohort.settings(training={"batch": 3})


class LeavesOut(Silent):
    """Chooses all patients but one, and always the first examination."""

    def __init__(self, patient: int | None = None):
        super().__init__()
        self.patient = patient

    def chosen(self, count, rate):
        return [number for number in range(count) if number != self.patient]

    def one_of(self, count):
        return 0


class Recorder:
    """An optimizer that looks at gradients and changes nothing."""

    def __init__(self, network):
        self.network, self.param_groups, self.seen = network, [{}], []

    def step(self):
        self.seen.append([parameter.grad.clone() for parameter in self.network.parameters()])


def setup(tiny, tmp_path, clip, random, cases=None):
    cases = tiny.data(NAME).train if cases is None else cases
    terms = Terms(1000.0, 1e-3, PrivacySettings(epsilon=1000, noise=1.0, clip=clip))
    plan = Plan(len({case.patient for case in cases}), SETTINGS.training.batch, 1, 1)
    privacy = Privacy(NAME, terms, plan, Account.of_run(tmp_path), random)
    network = build_network(SETTINGS, cohort.SITES[NAME]).start(0)
    batches = TrainingBatches(cases, SETTINGS, (NAME,), tiny.machine.cache)
    return SimpleNamespace(privacy=privacy, network=network, batches=batches, recorder=Recorder(network))


def step(tiny, folder, clip, random, cases=None) -> torch.Tensor:
    """The gradient of one step, times the number by which it is divided."""
    of = setup(tiny, folder, clip, random, cases)
    training = RoundTraining(
        SETTINGS, NAME, 1, of.network, of.recorder, of.batches, 1, cohort.never, privacy=of.privacy
    )
    training.run()
    [gradients] = of.recorder.seen
    return torch.cat([one.flatten() for one in gradients]).double() * of.privacy.expected


def alone(tiny, folder, patient) -> torch.Tensor:
    """A patient's own gradient, from its crop alone, by the plain backward pass."""
    of = setup(tiny, folder, 1.0, Silent())
    of.network.train()
    [[batch]] = [list(lot) for lot in of.batches.lots(1, [[(patient, 0)]])]
    plain_loss(forward(of.network, batch, "float32")).total.backward()
    return torch.cat(
        [(torch.zeros_like(one) if one.grad is None else one.grad).flatten() for one in of.network.parameters()]
    ).double()


@pytest.fixture(scope="module")
def gradients(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    return [alone(tiny, folder, patient) for patient in range(3)]


@pytest.mark.parametrize("clip", [0.5, 1e5])
def test_without_a_patient_a_step_differs_by_the_clip_at_most(clip, tiny, tmp_path, gradients) -> None:
    whole = step(tiny, tmp_path, clip, LeavesOut())
    for patient, own in enumerate(gradients):
        difference = whole - step(tiny, tmp_path, clip, LeavesOut(patient))
        assert float(difference.norm()) <= clip * (1 + 1e-4)
        # The patient's own clipped gradient, and no trace of it in what the others add.
        expected = own * min(1.0, clip / float(own.norm()))
        torch.testing.assert_close(difference, expected, rtol=1e-3, atol=1e-5 * float(expected.norm()))


def test_a_patient_with_several_examinations_counts_once(tiny, tmp_path) -> None:
    first, second, other = tiny.data(NAME).train
    cases = [first, replace(second, patient=first.patient), other]
    whole = step(tiny, tmp_path, 0.5, LeavesOut(), cases)
    for patient in range(2):
        without = step(tiny, tmp_path, 0.5, LeavesOut(patient), cases)
        assert float((whole - without).norm()) <= 0.5 * (1 + 1e-4)
    of = setup(tiny, tmp_path, 0.5, known(), cases)
    assert sorted(of.batches.examinations()) == [1, 2]
    drawn = [pair for _ in range(200) for lot in of.privacy.lots([2, 1]) for pair in lot]
    assert {pair for pair in drawn} == {(0, 0), (0, 1), (1, 0)}


def test_noise_goes_where_a_gradient_can_be_and_nowhere_else(tiny, tmp_path) -> None:
    """Of an empty lot, and of weights for modalities that the site does not own."""

    class Nobody(LeavesOut):
        def chosen(self, count, rate):
            return []

        def normal(self, count):
            return known().normal(count)

    of = setup(tiny, tmp_path, 1.0, Nobody())
    training = RoundTraining(
        SETTINGS, NAME, 1, of.network, of.recorder, of.batches, 1, cohort.never, privacy=of.privacy
    )
    training.run()
    [noise] = of.recorder.seen
    by_name = dict(zip([name for name, _ in of.network.named_parameters()], noise, strict=True))
    encoder = torch.cat([value.flatten() for name, value in by_name.items() if name.startswith("encoders.T1ce")])
    assert float((encoder != 0).double().mean()) > 0.99
    assert float(encoder.std() * of.privacy.expected) == pytest.approx(1.0, rel=0.05)
    [stacked] = [value for name, value in by_name.items() if name.endswith("levels.1.fusion.short_cut.0.conv.weight")]
    by_modality = stacked.unflatten(1, (4, -1)).abs().sum(dim=(0, 2, 3, 4, 5))
    # FLAIR and T1ce of FLAIR, T1ce, T1, T2.
    assert (by_modality > 0).tolist() == [True, True, False, False]
    assert training.report.means() == {} and training.taken == of.privacy.steps_per_epoch


def test_a_round_takes_no_more_steps_than_it_was_charged_for(tiny, tmp_path) -> None:
    of = setup(tiny, tmp_path, 1.0, Silent())
    training = RoundTraining(
        SETTINGS, NAME, 1, of.network, of.recorder, of.batches, 1, cohort.never, privacy=of.privacy
    )
    training.run()
    with pytest.raises(RuntimeError, match="more steps"):
        training.run()
