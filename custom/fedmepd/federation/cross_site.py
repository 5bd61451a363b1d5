"""Every site's model and the global one on every site's test cases, where the sites agree to take part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from fedmepd import methods
from fedmepd.config import Settings
from fedmepd.data.site import SiteData
from fedmepd.disclosure import Disclosure, Told, reason_of
from fedmepd.errors import UpdateRefused
from fedmepd.evaluation.entries import label
from fedmepd.federation.evaluate import score_cases
from fedmepd.federation.exchange import ModelCopy, SiteProfile
from fedmepd.federation.reports import CrossSiteReport, check_report
from fedmepd.networks.anchors import FLOATS, fault_of
from fedmepd.networks.build import build_network
from fedmepd.networks.network import SHARED, FedMEPDNet
from fedmepd.site_limits import Limits
from fedmepd.tasks.find import find_task
from fedmepd.tasks.task import Task

SERVER = "server"

_ENCODER, _AUXILIARY, _ANCHORS = "encoders.", "auxiliary.", "anchors."


def copy_of(network: FedMEPDNet) -> ModelCopy:
    """Returns what of a network has to travel so that others can segment with it: no auxiliary decoder."""
    tensors = {key: value for key, value in network.state_dict().items() if not key.startswith(_AUXILIARY)}
    tensors |= {f"{_ANCHORS}{level}": rows for level, rows in network.anchors.items()}
    return ModelCopy(network.modalities, {key: value.detach().cpu().float() for key, value in tensors.items()})


def network_of(copy: ModelCopy, settings: Settings) -> FedMEPDNet:
    """The inverse of :func:`copy_of`. A modality whose encoder a site has withheld is not the network's any more.

    Raises:
        UpdateRefused: the tensors are no model of this job.
    """
    anchors = {key: value for key, value in copy.tensors.items() if key.startswith(_ANCHORS)}
    weights = {key: value for key, value in copy.tensors.items() if key not in anchors}
    encoders = {key.split(".")[1] for key in weights if key.startswith(_ENCODER)}
    task = find_task(settings.task)
    # Each modality has something of its own, unless all share one encoder and its normalisations.
    shared = SHARED in encoders and not settings.network.modality_norms
    known = [name for name in copy.modalities if name in task.modalities and (shared or name in encoders)]
    if not known:
        raise UpdateRefused("the model has no encoder of a known modality")
    # A site's model calibrates, the global one does not.
    calibrates = any(key.startswith("calibration.") for key in weights)
    method = methods.find(settings.method).at_site(settings)
    network = method.network(known) if calibrates else build_network(settings, known)
    if network.shared_encoder != (SHARED in encoders):
        raise UpdateRefused("the model's encoders are no encoders of this job")
    expected = {key: value.shape for key, value in network.state_dict().items() if not key.startswith(_AUXILIARY)}
    for key in sorted(expected.keys() | weights.keys()):
        value = weights.get(key)
        if value is None or value.dtype not in FLOATS or value.shape != expected.get(key) or not value.isfinite().all():
            raise UpdateRefused(f"the model's {key} is missing, unknown, not finite, or of another shape or kind")
    network.load_state_dict(weights, strict=False)
    anchors = {key.removeprefix(_ANCHORS): rows for key, rows in anchors.items()}
    if fault := fault_of(anchors, task, network.width):
        raise UpdateRefused(f"the model's anchors {fault}")
    network.anchors = {int(level): rows for level, rows in anchors.items()}
    return network.eval()


def test_copy(
    network: FedMEPDNet,
    data: SiteData,
    settings: Settings,
    abort: Callable[[], bool],
    disclosure: Disclosure,
    limits: Limits,
) -> dict[str, Any]:
    """Tests a model of others; returns a :class:`~fedmepd.federation.reports.CrossSiteReport` as plain values."""
    tested, told = [], Told(data.test)

    def watch(*of_case: Any) -> None:
        tested.append(of_case[0])
        told.watch(*of_case)

    scores = score_cases(
        network,
        data.test,
        settings,
        data.cache,
        distances=True,
        abort=abort,
        limits=limits,
        watch=watch,
    )
    scores, withheld = disclosure.scores("model_scores", scores, told)
    return {"test": scores, "withheld": withheld, "cases": len(tested)}


class CrossSiteTest:
    """The matrix: a row for each model, the global one first; a column for each site's test cases, the server's last.

    A cell holds the ``modalities`` that model and cases have in common, the number of ``cases``, the ``test`` scores,
    and, where there are none, the ``reason``.

    Args:
        profiles: the sites that take part in the run.
        server: the fusion site's, which always agrees.
        task: of the run.
    """

    def __init__(self, profiles: dict[str, SiteProfile], server: SiteProfile, task: Task):
        self._task = task
        self._profiles = {SERVER: server} | profiles
        self._cells = {
            model: {site: self._before(model, site) for site in (*profiles, SERVER)} for model in self._profiles
        }

    def _before(self, model: str, site: str) -> dict[str, Any]:
        owner, tester = self._profiles[model], self._profiles[site]
        common = [name for name in owner.modalities if name in tester.modalities]
        return {"modalities": common, "cases": 0, "test": None, "reason": self._obstacle(model, owner, site, tester)}

    def _obstacle(self, model: str, owner: SiteProfile, site: str, tester: SiteProfile) -> str | None:
        if not tester.cases["test"]:
            return f"{label(site)} has no test case"
        if model == site:
            return None
        if owner.cross_site != "share":
            return f"{label(model)} does not share its model"
        if tester.cross_site == "none":
            return f"{label(site)} tests no model but its own"
        if not set(owner.modalities) & set(tester.modalities):
            return "no modality in common"
        return None

    def models(self) -> list[str]:
        """Whose model there is somebody to test it for: the server, then sites."""
        return [model for model in self._cells if self.targets(model)]

    def targets(self, model: str) -> list[str]:
        """Where a model is still to be tested: sites, the server as the last."""
        return [site for site in self._cells[model] if site != model and self._is_open(self._cells[model][site])]

    def sites_to_ask(self, model: str) -> list[str]:
        """The targets but the server."""
        return [site for site in self.targets(model) if site != SERVER]

    @staticmethod
    def _is_open(cell: dict[str, Any]) -> bool:
        return cell["test"] is None and cell["reason"] is None

    def arrived(self, model: str, modalities: Sequence[str]) -> None:
        """Notes with which modalities a model came: a site may have withheld an encoder."""
        for site in self.targets(model):
            cell = self._cells[model][site]
            cell["modalities"] = [name for name in cell["modalities"] if name in modalities]
            if not cell["modalities"]:
                cell["reason"] = "no modality in common"

    def accept(self, model: str, site: str, report: Any) -> None:
        """Takes the scores of a model at a site.

        Raises:
            UpdateRefused: the report is something else.
        """
        checked = check_report(site, CrossSiteReport, report, self._task)
        withheld, cell = checked.pop("withheld"), self._cells[model][site]
        cell |= checked
        if self._is_open(cell):
            cell["reason"] = reason_of(withheld) if withheld else "no test case with a modality in common"

    def miss(self, model: str, reason: str, site: str | None = None) -> None:
        """Notes why a model is not tested at a site, or at all that are left."""
        for name in self.targets(model) if site is None else [site]:
            self._cells[model][name]["reason"] = reason

    def result(self, records: dict[str, dict[str, Any]]) -> dict[str, dict[str, dict[str, Any]]]:
        """The cells by model and site.

        Args:
            records: of the server and every site, with what each scored on its own cases in the final test.
        """
        for name, record in records.items():
            cell = self._cells[name][name]
            if record["test"] is not None:
                cell |= {"cases": self._profiles[name].cases["test"], "test": record["test"]}
            elif cell["reason"] is None:
                cell["reason"] = record["untested"] or "not tested"
        return self._cells
