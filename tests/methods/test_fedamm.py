"""FedAMM as a whole against plain loops: its loss, its means, its prototypes."""

from __future__ import annotations

import pytest
import torch

from fedmepd.data.batches import Batch
from fedmepd.methods.fedamm import CASES, COUNTS, MEANS, SHARES, FedAMMAtServer, subsets_of
from fedmepd.methods.parts.fedamm_loss import FedAMMLoss
from fedmepd.methods.parts.fedamm_loss import Prototypes as Known
from fedmepd.networks.build import build_network
from fedmepd.networks.network import FedMEPDNet
from fedmepd.seeds import derive_seed
from fedmepd.tasks.brats import BRATS
from fedmepd.training.epoch import Step
from fedmepd.training.losses import training_loss
from tests.federation.drive import fusion_state, make, play, server_state, site_state
from tests.federation.slow import Party
from tests.methods.plain import assert_survives_a_kill, average, hand_out, near, parties
from tests.tiny import SITES, settings

CLASSES = 4
Prototypes = dict[int, torch.Tensor]


def soft(p: torch.Tensor) -> torch.Tensor:
    """Probabilities of logits that are divided by 4: fourth roots, which add up to 1 again."""
    roots = p.clamp_min(1e-7) ** 0.25
    return roots / roots.sum(dim=0, keepdim=True)


def divergence(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """16 KL(teacher | student), the mean over the batch's voxels; both (B, classes, ...)."""
    values = []
    for of_student, of_teacher in zip(student, teacher.detach(), strict=True):
        q, p = soft(of_student), soft(of_teacher)
        values.append((p * (p / q).log()).sum(dim=0).flatten())
    return 16 * torch.cat(values).mean()


def means_of_classes(feature: torch.Tensor, label: torch.Tensor) -> Prototypes:
    """feature (C, X, Y, Z), label (X, Y, Z) -> mean feature of each class that is there."""
    return {k: feature[:, label == k].mean(dim=1) for k in range(CLASSES) if (label == k).any()}


def maps(feature: torch.Tensor, label: torch.Tensor) -> dict[int, torch.Tensor]:
    """Cosine of every voxel with the mean of each class that is there."""
    return {
        k: torch.cosine_similarity(feature, mean[:, None, None, None].expand_as(feature), dim=0)
        for k, mean in means_of_classes(feature, label).items()
    }


def loss_of(network, batch, prototypes: Prototypes, share: float, gradient: bool) -> tuple[torch.Tensor, list, list]:
    """FedAMM's loss where all cases have the same modalities; the cases' class means; the modalities' paces."""
    outputs = network.training_outputs(batch.images, batch.modalities)
    parts = training_loss(outputs, batch.label)
    total = sum(parts.segmentation) + sum(sum(pair) / 2**level for level, pair in parts.regions.items())
    fused = outputs.features[1]
    squares, distances = [], []
    for place, modality in enumerate(batch.modalities):
        alone = network.encode(batch.images[:, place : place + 1], (modality,))
        alone = network.decoder(
            [torch.cat(level, dim=1) for level in alone], ["FLAIR T1ce T1 T2".split().index(modality)]
        )
        total = total + 0.5 * divergence(alone[0], outputs.segmentation)
        for level, region in alone[1].items():
            total = total + 0.5 * divergence(region, outputs.regions[level]) / 2**level
        differences = []
        for sample in range(len(batch.cases)):
            theirs = maps(alone[2][1][sample], batch.label[sample])
            differences += [theirs[k] - one for k, one in maps(fused[sample].detach(), batch.label[sample]).items()]
        squares.append(torch.cat([one.flatten() ** 2 for one in differences]).mean())
        distances.append(float(torch.cat([one.flatten().abs() for one in differences]).mean().detach()))
    middle = sum(distances) / len(distances)
    for square, distance, pair in zip(squares, distances, parts.auxiliary, strict=True):
        if distance > middle:
            total = total + sum(pair) + 0.1 * square
    seen = [means_of_classes(fused[sample], batch.label[sample]) for sample in range(len(batch.cases))]
    for own in seen:
        for k, mean in own.items():
            if k in prototypes:
                mean = mean if gradient else mean.detach()
                total = total + share * ((mean - prototypes[k]) ** 2).mean() / len(seen)
    return total, [{k: mean.detach() for k, mean in own.items()} for own in seen], [d / middle for d in distances]


def train(party: Party, number: int, prototypes: Prototypes, share: float) -> tuple[list, list]:
    """A round of a participant; returns its cases' class means, and the paces of every step."""
    party.adam.param_groups[0]["lr"] = party.rate(number, party.settings.rounds)
    torch.manual_seed(derive_seed(party.settings.seed, party.data.name, number))
    party.network.train()
    cases, paces = [], []
    for batch in party.batches.epoch(number):
        total, seen, pace = loss_of(party.network, batch, prototypes, share, True)
        party.adam.zero_grad()
        total.backward()
        party.adam.step()
        cases += seen
        paces.append(pace)
    return cases, paces


@pytest.mark.parametrize("gradient", [False, True])
def test_loss_and_its_gradients(gradient) -> None:
    """In double precision, where both ways of writing it differ by next to nothing."""
    generator = torch.Generator().manual_seed(3)
    modalities = ("FLAIR", "T1ce", "T2")
    network = FedMEPDNet(BRATS, modalities, 4).start(0).double().train()
    images = torch.randn(2, 3, 16, 16, 16, generator=generator, dtype=torch.float64)
    # Class 3 is in the first case alone, class 2 in none.
    label = torch.randint(0, 2, (2, 16, 16, 16), generator=generator)
    label[0, :4] = 3
    batch = Batch(images, modalities, label, (5, 7))
    means = {k: torch.randn(4, generator=generator, dtype=torch.float64) for k in (0, 2, 3)}
    known = torch.tensor([k in means for k in range(CLASSES)])
    rows = torch.stack([means.get(k, torch.zeros(4, dtype=torch.float64)) for k in range(CLASSES)])
    prototypes = {modalities: Known(rows, known, 0.3), ("FLAIR",): Known(rows + 1, known, 0.9)}
    loss = FedAMMLoss(dict.fromkeys(modalities, 1.0), prototypes, gradient)
    outputs = network.training_outputs(images, modalities)
    total = loss(Step(network, batch, images, modalities, label, outputs, "float32")).total
    expected, seen, paces = loss_of(network, batch, means, 0.3, gradient)
    assert float(total.detach()) == pytest.approx(float(expected.detach()), rel=1e-9)
    weights = [value for key, value in network.named_parameters()]
    found, slow = (torch.autograd.grad(one, weights, allow_unused=True) for one in (total, expected))
    assert any(one is not None and one.abs().sum() > 0 for one in slow)
    for one, other in zip(found, slow, strict=True):
        zero = torch.zeros(())
        torch.testing.assert_close(one if one is not None else zero, other if other is not None else zero)
    assert [loss.paces[name] for name in modalities] == [[pytest.approx(pace)] for pace in paces]
    assert sorted(loss.seen) == [5, 7] and loss.seen[7][2].tolist() == [True, True, False, False]
    for case, own in zip((5, 7), seen, strict=True):
        for k, mean in own.items():
            torch.testing.assert_close(loss.seen[case][1][k], mean)


def test_fedamm(tiny, tmp_path) -> None:
    """Two rounds. No two participants have the same modalities, so everyone's share of its cases is 1."""
    of = settings("fedamm", rounds=2, prototypes={"cases": 2, "ema": 0.5, "gradient": True})
    everybody = parties(tiny, of)
    start, whole = everybody["fusion"].state(), everybody["fusion"].state()
    prototypes: dict[str, Prototypes] = {name: {} for name in everybody}
    server, sites = make(tiny, of, tmp_path)
    for number in (1, 2):
        paces = {}
        for name, party in everybody.items():
            hand_out(whole, party)
            seen, paces[name] = train(party, number, prototypes[name], float(number > 1))
            for k in range(CLASSES):
                means = [case[k] for case in seen if k in case]
                if len(means) >= 2:
                    mean, old = sum(means) / len(means), prototypes[name].get(k)
                    prototypes[name][k] = mean if old is None else 0.5 * old + 0.5 * mean
        # Encoders by the cases that have the modality, which are all of an owner's; the rest is a plain mean.
        average(whole, everybody, lambda party: len(party.data.train), "encoders.")
        average(whole, everybody, lambda party: 1, "decoder.")
        average(whole, everybody, lambda party: 1, "auxiliary.")
        figures = play(server, sites, number)
        found = server_state(tmp_path)["state"]
        near(found, whole, start)
        kept = {name: site_state(tmp_path, name, number) for name in SITES} | {"fusion": fusion_state(tmp_path)}
        for name, party in everybody.items():
            if name in SITES:
                near(kept[name]["network"], party.state(), start)
            # Goes on from what is kept, so that the rounding errors of two rounds do not add up.
            party.adam.load_state_dict(kept[name]["optimizer"])
        whole = found
    for name in SITES:
        for place, modality in enumerate(SITES[name]):
            mean = sum(of_step[place] for of_step in paces[name]) / len(paces[name])
            assert figures[f"{name}/relative_pace_{modality}"] == pytest.approx(mean, rel=0.02)
        assert figures[f"{name}/loss_prototypes"] > 0
    assert {f"server/relative_pace_{name}" for name in ("FLAIR", "T1ce", "T1", "T2")} <= figures.keys()
    server.begin_round()
    for name, modalities in SITES.items():
        sent = server.payload(name).tensors
        row = subsets_of(modalities).index(modalities)
        assert [bool(known) for known in sent[COUNTS][row]] == [k in prototypes[name] for k in range(CLASSES)]
        for k, mean in prototypes[name].items():
            torch.testing.assert_close(sent[MEANS][row, k], mean, rtol=0.02, atol=0.02)
        assert sent[SHARES][row] == 1 and not sent[COUNTS][:row].any()
    assert any(prototypes[name] for name in SITES)


def extras(subsets: int, width: int, **rows) -> dict[str, torch.Tensor]:
    """By row: number of cases of ten, the value of the mean of class 1, and of how many cases of ten it is."""
    found = {
        MEANS: torch.zeros(subsets, CLASSES, width),
        COUNTS: torch.zeros(subsets, CLASSES),
        CASES: torch.zeros(subsets),
    }
    for row, (cases, value, counted) in rows.items():
        place = int(row.removeprefix("row"))
        found[CASES][place] = cases / 10
        found[MEANS][place, 1] = value
        found[COUNTS][place, 1] = counted / 10
    return found


def test_means_of_participants_whose_cases_differ() -> None:
    """Two sites of 10 cases: a has 4 with T1ce alone, b has 8."""
    of = settings("fedamm", prototypes={"ema": 0.75})
    weights = build_network(of).start(0).state_dict()
    server = FedAMMAtServer(of, weights, store=None)
    width = of.network.width
    # Rows: FLAIR, T1ce, both.
    for name in ("a", "b"):
        server.join(name, ("FLAIR", "T1ce"))
    sent = {
        "a": extras(3, width, row1=(4, 2.0, 4), row2=(6, 7.0, 6)),
        "b": extras(3, width, row1=(8, 5.0, 2), row0=(2, 1.0, 0)),
    }
    changes = {
        name: {key: torch.full(shape, value) for key, shape in server.expect(name).items()}
        for name, value in (("a", 1.0), ("b", 4.0))
    }

    def away(given, number, extras=None):
        return None

    for number, factor in ((1, 1.0), (2, 3.0)):
        server.open(number)
        for name in ("b", "a"):
            server.take(name, changes[name], 10)
            server.take_extras(name, {**sent[name], MEANS: sent[name][MEANS] * factor}, 10)
        before = server.weights
        server.close(away, number)
        moved = {key: float((server.weights[key] - before[key]).flatten()[0]) for key in before}
        # FLAIR: 6 cases of a, 2 of b. T1ce: 10 and 8. T1: nobody.
        assert moved["encoders.FLAIR.levels.2.0.conv.weight"] == pytest.approx((6 * 1 + 2 * 4) / 8, rel=1e-5)
        assert moved["encoders.T1ce.levels.2.0.conv.weight"] == pytest.approx((10 * 1 + 8 * 4) / 18, rel=1e-5)
        assert moved["encoders.T1.levels.2.0.conv.weight"] == 0
        assert moved["decoder.classify.weight"] == pytest.approx(2.5, rel=1e-5)
        received = server.send("a")
        alone = (4 * 2 + 2 * 5) / 6
        expected = alone if number == 1 else 0.75 * alone + 0.25 * 3 * alone
        assert received[MEANS][1, 1, 0] == pytest.approx(expected, rel=1e-4)
        assert received[COUNTS].tolist() == [[0, 0, 0, 0], [0, 1, 0, 0], [0, 1, 0, 0]]
        assert received[SHARES].tolist() == pytest.approx([0, 4 / 12, 1])


def test_no_site_can_claim_more_cases_than_it_has() -> None:
    """Of three subsets a claims to have all its cases in each: that counts as a third in each."""
    of = settings("fedamm")
    weights = build_network(of).start(0).state_dict()
    key, moved = "encoders.T1ce.levels.2.0.conv.weight", []
    for claim in (torch.ones(3), torch.full((3,), 1 / 3)):
        server = FedAMMAtServer(of, weights, store=None)
        server.open(1)
        for name, value, shares in (("a", 1.0, claim), ("b", 4.0, torch.tensor([0.0, 1.0, 0.0]))):
            server.join(name, ("FLAIR", "T1ce"))
            server.take(name, {key: torch.full(shape, value) for key, shape in server.expect(name).items()}, 9)
            server.take_extras(name, extras(3, of.network.width) | {CASES: shares}, 9)
        server.close(lambda given, number, extras=None: None, 1)
        moved.append(float((server.weights[key] - weights[key]).flatten()[0]))
    # Six cases of a and nine of b.
    assert moved == pytest.approx([(6 * 1 + 9 * 4) / 15] * 2, rel=1e-5)


@pytest.mark.slow
def test_survives_a_kill(tiny, tmp_path) -> None:
    of = settings("fedamm", rounds=2, prototypes={"cases": 1, "gradient": True})
    assert_survives_a_kill(tiny, of, tmp_path)
    means = []
    for name in ("one", "many"):
        server, _ = make(tiny, of, tmp_path / name)
        server.begin_round()
        means.append(server.payload("site-1").tensors)
    assert all(torch.equal(means[0][key], means[1][key]) for key in means[0])
