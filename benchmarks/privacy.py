"""What differential privacy costs, and what it prevents: Dice against epsilon, and two attacks on membership.

Dice: a small federation on phantoms in one process, without privacy and with several budgets.

Membership: who knows a patient's images asks whether they were trained on. ``replay``: the server sees a site's update,
and knows the seed of its crops; it compares the update with the gradient of the very crop that the patient would have
given. ``loss``: somebody has a site's model; the loss on the patient's images is compared with that of shadow models,
which were trained without it. Both are scored by the area under the ROC curve: 0.5 is guessing, 1 is certainty.

Every run keeps its figures in the folder given, so that the command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import measure
from benchmarks.phantoms import phantom_data
from fedmepd.config import Settings
from fedmepd.data.batches import TrainingBatches
from fedmepd.data.site import SiteData
from fedmepd.evaluation import results
from fedmepd.federation.exchange import Payload
from fedmepd.federation.in_process import run_in_process
from fedmepd.federation.site import LAST, FederationSite
from fedmepd.job_settings import make_settings
from fedmepd.networks.build import build_network
from fedmepd.networks.network import FedMEPDNet
from fedmepd.site_settings import SiteSettings
from fedmepd.storage import read_json, write_json
from fedmepd.training.checkpoints import load_model
from fedmepd.training.epoch import forward, plain_loss

SITES = ("site-1", "site-4", "site-7")
# One modality, so that a run takes seconds.
ATTACKED = "site-5"
EPSILONS = (50.0, 10.0, 3.0)
_SMALL = {"rounds": 10, "network": {"width": 4}, "evaluation": {"every": 5}}
_QUICK = {
    "rounds": 1,
    "network": {"width": 4},
    "training": {"crop": 16},
    "evaluation": {"window": 48, "overlap": 0},
}
Say = Callable[[str], None]


def auc(members: Sequence[float], others: Sequence[float]) -> float:
    """Returns how often a member has the higher score than somebody else; ties count half."""
    first, second = np.asarray(members)[:, None], np.asarray(others)[None]
    return float(((first > second) + 0.5 * (first == second)).mean())


def called(epsilon: float | None) -> str:
    """Returns how folders and tables call a budget."""
    return "none" if epsilon is None else f"{epsilon:g}"


def _privacy(epsilon: float | None) -> dict[str, Any]:
    return {} if epsilon is None else {"privacy": {"epsilon": epsilon}}


def dice(folder: Path, changes: dict[str, Any], sites: Sequence[str], epsilon: float | None, say: Say) -> dict:
    """Trains a federation, unless it is there; returns its row of the table."""
    place = folder / "dice" / called(epsilon)
    file = place / "results" / results.FILE_NAME
    found = results.read(file) if file.is_file() else {"status": ""}
    if found["status"] != "finished":
        settings = make_settings("phantom", changes | _privacy(epsilon))
        found = run_in_process(settings, SiteSettings.load(), place, sites, say)
    spent = [entry["privacy"]["epsilon"] for entry in (*found["sites"], found["server"]) if entry.get("privacy")]
    noise = [entry["privacy"]["noise"] for entry in found["sites"] if entry.get("privacy")]
    return {
        "epsilon": called(epsilon),
        "sites": found["mean"]["mdsc"],
        "server": found["server"]["test"]["mdsc"],
        "spent": max(spent, default=None),
        "noise": max(noise, default=None),
        "seconds": found["seconds"],
    }


class Attacked:
    """A site that trains on a part of a pool of patients.

    Args:
        folder: for its states.
        pool: everybody.
        settings: of the job; FedAvg, one round.
    """

    def __init__(self, folder: Path, pool: SiteData, settings: Settings):
        self.folder, self.pool, self.settings = folder, pool, settings

    def train(self, members: Sequence[int], name: str) -> tuple[dict[str, torch.Tensor], FedMEPDNet]:
        """Trains on some members of the pool; returns the update that the server sees, and the model."""
        data = replace(self.pool, train=[self.pool.train[number] for number in members])
        site = FederationSite(self.pool.name, self.settings, data, self.folder / name, torch.device("cpu"))
        update = site.train(Payload(1, dict(self.start().state_dict())), lambda: False)
        return update.tensors, load_model(self.folder / name / LAST)

    def start(self) -> FedMEPDNet:
        """The network that the server sends."""
        return build_network(self.settings, self.pool.modalities).start(self.settings.seed)

    def gradients(self, count: int) -> list[list[torch.Tensor]]:
        """For everybody in the pool, what the crop would do to the weights if it were one of ``count`` cases."""
        network = self.start().train()
        found = []
        for case in self.pool.train:
            batches = TrainingBatches([case] * count, self.settings, (self.pool.name,), self.pool.cache)
            found.append([_gradient(network, batch) for batch in batches.epoch(1)])
        return found

    def losses(self, network: FedMEPDNet, crops: int) -> np.ndarray:
        """The loss on everybody in the pool, a mean over some crops."""
        batches = TrainingBatches(self.pool.train, self.settings, ("attack",), self.pool.cache)
        total = np.zeros(len(self.pool.train))
        network.train()
        for number in range(crops):
            for batch in batches.epoch(number):
                with torch.no_grad():
                    total[batch.cases[0]] += float(plain_loss(forward(network, batch, "float32")).total)
        return total / crops


def _gradient(network: FedMEPDNet, batch: Any) -> torch.Tensor:
    parameters = list(network.parameters())
    loss = plain_loss(forward(network, batch, "float32")).total
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    pairs = zip(parameters, gradients, strict=True)
    return torch.cat([(torch.zeros_like(weight) if one is None else one).flatten() for weight, one in pairs])


def replay(attacked: Attacked, count: int, trials: int) -> float:
    """Returns the area under the curve of the server's attack on updates of ``count`` patients.

    Adam's first step has the size of the learning rate in the direction of the gradient's sign.
    """
    names = [name for name, _ in attacked.start().named_parameters()]
    directions = attacked.gradients(count)
    members_scores, other_scores = [], []
    for trial in range(trials):
        members = np.random.default_rng(trial).permutation(len(directions))[:count].tolist()
        update, _ = attacked.train(members, f"replay-{count}-{trial}")
        change = torch.cat([update[name].flatten() for name in names])
        for number, of_case in enumerate(directions):
            score = max(float(torch.cosine_similarity(change, -one.sign(), dim=0)) for one in of_case)
            (members_scores if number in members else other_scores).append(score)
    return auc(members_scores, other_scores)


def loss_threshold(attacked: Attacked, runs: int, crops: int) -> float:
    """Returns the area under the curve of the attack by losses: every run is attacked, with the others as shadows."""
    size = len(attacked.pool.train)
    inside = np.zeros((runs, size), dtype=bool)
    losses = np.zeros((runs, size))
    for run in range(runs):
        members = sorted(np.random.default_rng([1, run]).permutation(size)[: size // 2].tolist())
        inside[run, members] = True
        losses[run] = attacked.losses(attacked.train(members, f"loss-{run}")[1], crops)
    members_scores, other_scores = [], []
    for run in range(runs):
        for number in range(size):
            shadows = ~inside[:, number]
            shadows[run] = False
            if not shadows.any():
                continue
            # Hard patients have a high loss in every model: what counts is how much lower it is here.
            score = losses[shadows, number].mean() - losses[run, number]
            (members_scores if inside[run, number] else other_scores).append(float(score))
    return auc(members_scores, other_scores)


def membership(folder: Path, sizes: dict[str, int], crop: int, epsilon: float | None, say: Say) -> dict:
    """Attacks a site, unless that is done; returns the row of the table."""
    place = folder / "membership" / called(epsilon)
    file = place / "figures.json"
    if file.is_file():
        return read_json(file, "figures of an attack")
    # What was broken off begins anew: a site would go on from its state.
    shutil.rmtree(place, ignore_errors=True)

    def site(batch: int, epochs: int) -> Attacked:
        training = {"batch": batch, "crop": crop, "local_epochs": epochs, "precision": "float32"}
        shape = {"method": "fedavg", "rounds": 1, "network": {"width": 4}, "training": training}
        return Attacked(place, pool, make_settings("phantom", shape | _privacy(epsilon)))

    pool = phantom_data(place / "pool", ATTACKED, sizes["pool"])
    row: dict[str, Any] = {"epsilon": called(epsilon)}
    for count in (1, 4):
        say(f"membership, epsilon {called(epsilon)}: replay of {count}")
        row[f"replay_{count}"] = replay(site(batch=1, epochs=1), count, sizes["trials"])
    say(f"membership, epsilon {called(epsilon)}: loss")
    row["loss"] = loss_threshold(site(batch=1, epochs=sizes["epochs"]), sizes["runs"], sizes["crops"])
    write_json(file, row)
    return row


@measure.command
def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the tables and writes the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("workspace_privacy"), help="for the runs' states")
    parser.add_argument("--epsilons", nargs="*", type=float, default=list(EPSILONS), help="budgets beside none")
    parser.add_argument("--sites", nargs="+", default=list(SITES), help="of the federation whose Dice is measured")
    parser.add_argument("--rounds", type=int, help="of that federation; default: 10")
    parser.add_argument("--trials", type=int, default=8, help="updates that the replay is tried on; default: 8")
    parser.add_argument("--runs", type=int, default=4, help="models that the loss is tried on; default: 4")
    parser.add_argument("--epochs", type=int, default=15, help="for which these models are trained; default: 15")
    parser.add_argument("--only", choices=("dice", "membership"), help="one of the two parts")
    parser.add_argument("--json", type=Path, help="file for the figures; default: benchmarks/results/privacy.json")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to try the command out")
    options = parser.parse_args(arguments)
    changes = dict(_QUICK if options.quick else _SMALL)
    if options.rounds:
        changes["rounds"] = options.rounds
    sizes = {"pool": 12, "trials": options.trials, "epochs": options.epochs, "runs": options.runs, "crops": 2}
    if options.quick:
        sizes = {"pool": 5, "trials": 2, "epochs": 1, "runs": 3, "crops": 1}
    budgets = [None, *options.epsilons]
    torch.set_num_threads(1)

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    rows: dict[str, list[dict[str, Any]]] = {"dice": [], "membership": []}
    for epsilon in budgets:
        if options.only != "dice":
            rows["membership"].append(membership(options.folder, sizes, 16 if options.quick else 32, epsilon, say))
        if options.only != "membership":
            rows["dice"].append(dice(options.folder, changes, options.sites, epsilon, say))
    environment = measure.environment()
    print(f"\n{measure.describe(environment)}\n")
    if rows["dice"]:
        print(_dice_table(rows["dice"]) + "\n")
    if rows["membership"]:
        print(_membership_table(rows["membership"]) + "\n")
    all_rows = [{"part": part, **row} for part, of_part in rows.items() for row in of_part]
    report = measure.write_report("privacy", options.json, environment, all_rows, busy=os.getloadavg()[0], sizes=sizes)
    print(f"written to {report}")


def _dice_table(rows: Sequence[dict[str, Any]]) -> str:
    cells = [
        [
            row["epsilon"],
            f"{row['sites']:.3f}",
            f"{row['server']:.3f}",
            *("-" if row[key] is None else f"{row[key]:.3g}" for key in ("spent", "noise")),
            f"{row['seconds']:.0f}",
        ]
        for row in rows
    ]
    return measure.table(["epsilon", "mDSC, sites", "mDSC, server", "spent", "noise / clip", "seconds"], cells)


def _membership_table(rows: Sequence[dict[str, Any]]) -> str:
    cells = [[row["epsilon"], *(f"{row[key]:.2f}" for key in ("replay_1", "replay_4", "loss"))] for row in rows]
    return measure.table(["epsilon", "replay, 1 patient", "replay, 4 patients", "loss"], cells)


if __name__ == "__main__":
    sys.exit(main())
