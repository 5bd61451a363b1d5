"""The fusion site at a hospital, as the server sees it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from fedmepd.config import FUSION_SITE, Settings
from fedmepd.data.training_images import ImageMeasures
from fedmepd.errors import FusionAway, UpdateRefused
from fedmepd.federation.checking import check_anchors, check_fused
from fedmepd.federation.exchange import FusionReply, FusionTask, ModelCopy, SiteProfile, Tested
from fedmepd.federation.fusion_desk import digest
from fedmepd.federation.fusion_site import Abort
from fedmepd.federation.reports import FusionReport, check_cases, check_figures, check_report, check_trained_on
from fedmepd.methods.method import Fused, Spent, Tensors
from fedmepd.methods.parts.selection import ANCHORS, EXTRA, parts
from fedmepd.tasks.find import find_task
from fedmepd.training.epoch import Progress

# Hands a task to the site and waits for the answer. Raises FusionAway, or Aborted.
Post = Callable[[FusionTask, Abort], FusionReply]


class FusionElsewhere:
    """Sends the fusion site its tasks, checks what comes back, and remembers what need not travel again.

    Args:
        settings: of the job; ``fusion.site`` names the site.
        profile: of that site.
        post: the way to it.
    """

    def __init__(self, settings: Settings, profile: SiteProfile, post: Post):
        self.settings = settings
        self.name = profile.name
        self._task = find_task(settings.task)
        self.profile = SiteProfile(FUSION_SITE, self._task.modalities, profile.fusion, profile.source, "share")
        # A hospital does not tell what its images look like.
        self.images, self.phantoms = ImageMeasures(), profile.source == "phantom"
        self._post = post
        self.device = torch.device("cpu")
        self._held: Tensors = {}
        self._version = ""
        self._bytes = 0, 0

    def join(self, site: SiteProfile) -> None:
        """See :meth:`~fedmepd.federation.fusion_site.Fusion.join`: the hospital itself may have other cases by now."""
        if site.name == self.name and site.fusion is not None:
            self.profile = replace(self.profile, cases=site.fusion)

    def spent(self) -> tuple[int, int]:
        """See :meth:`~fedmepd.federation.fusion_site.Fusion.spent`."""
        spent, self._bytes = self._bytes, (0, 0)
        return spent

    def steps(self) -> None:
        """See :meth:`~fedmepd.federation.fusion_site.Fusion.steps`."""
        return None

    def fuse(
        self,
        weights: Tensors,
        round_number: int,
        abort: Abort,
        progress: Progress | None = None,
        extras: Tensors | None = None,
    ) -> Fused:
        """See :meth:`~fedmepd.federation.fusion_site.Fusion.fuse`."""
        reply, report = self._ask("fuse", weights, round_number, abort, extras or {})
        anchors, others = parts(reply.tensors, (ANCHORS,)), parts(reply.tensors, (EXTRA,))
        arrived = {key: value for key, value in reply.tensors.items() if key not in anchors and key not in others}
        try:
            fused = check_fused(self.name, weights, arrived, relative=reply.relative)
            check_anchors(self.name, anchors, self.settings)
        except UpdateRefused as error:
            raise FusionAway(str(error), str(error)) from error
        # What a filter of the hospital's has changed, both sides hold differently.
        same = {key for key, value in arrived.items() if reply.digests.get(key) == digest(value)}
        self._held, self._version = {key: fused[key] for key in same}, reply.version
        spent = Spent(report["steps"], report["seconds"] or 0.0, report["peak_mib"])
        more = report["figures"], spent, report["privacy"]
        return Fused(fused, report["losses"], report["cases"], anchors | others, *more)

    def validate(self, weights: Tensors, round_number: int, abort: Abort) -> dict[str, Any] | None:
        """See :meth:`~fedmepd.federation.fusion_site.Fusion.validate`."""
        return self._score("validate", weights, round_number, abort)["scores"]

    def test(self, weights: Tensors, round_number: int, abort: Abort) -> Tested:
        """See :meth:`~fedmepd.federation.fusion_site.Fusion.test`."""
        report = self._score("test", weights, round_number, abort)
        try:
            check_cases(self.name, report["each"], self.profile.cases["test"])
        except UpdateRefused as error:
            raise FusionAway(str(error), str(error)) from error
        return Tested(report["scores"], report["each"], report["withheld"])

    def test_copy(self, copy: ModelCopy, round_number: int, abort: Abort) -> dict[str, Any]:
        """See :meth:`~fedmepd.federation.fusion_site.Fusion.test_copy`."""
        task = FusionTask("test_copy", round_number, tensors=copy.tensors, modalities=copy.modalities)
        return self._answer(task, abort)[1]["cross_site"]

    def _score(self, kind: str, weights: Tensors, round_number: int, abort: Abort) -> dict[str, Any]:
        reply, report = self._ask(kind, weights, round_number, abort)
        self._held, self._version = dict(weights), reply.version
        return report

    def _ask(
        self, kind: str, weights: Tensors, round_number: int, abort: Abort, extras: Tensors | None = None
    ) -> tuple[FusionReply, dict[str, Any]]:
        """Sends the weights that the site does not hold; all of them if it turns out to hold something else."""
        extras = extras or {}
        changed = {key: value for key, value in weights.items() if not self._holds(key, value)}
        task = FusionTask(kind, round_number, list(weights), self._version, changed | extras)
        reply, report = self._answer(task, abort)
        if report["lacks_weights"]:
            reply, report = self._answer(FusionTask(kind, round_number, list(weights), "", weights | extras), abort)
        return reply, report

    def _holds(self, key: str, value: torch.Tensor) -> bool:
        held = self._held.get(key)
        return held is value or (held is not None and torch.equal(held, value))

    def _answer(self, task: FusionTask, abort: Abort) -> tuple[FusionReply, dict[str, Any]]:
        reply = self._post(task, abort)
        self._bytes = self._bytes[0] + reply.wire_bytes[0], self._bytes[1] + reply.wire_bytes[1]
        try:
            if reply.round != task.round:
                raise UpdateRefused(f"answer of {self.name} for round {reply.round} refused: this is {task.round}")
            report = check_report(self.name, FusionReport, reply.report, self._task)
            check_figures(self.name, report, self.settings)
            check_trained_on(self.name, report["cases"], self.profile.cases["train"])
        except UpdateRefused as error:
            raise FusionAway(str(error), str(error)) from error
        return reply, report
