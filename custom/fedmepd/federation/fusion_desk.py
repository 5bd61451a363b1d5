"""A fusion site elsewhere: does the server's tasks, and sends back what may leave the hospital."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable

from torch import Tensor

from fedmepd.errors import FedMEPDError
from fedmepd.federation import agreed_weights
from fedmepd.federation.exchange import FusionReply, FusionTask, ModelCopy
from fedmepd.federation.fusion_site import Abort, FusionSite
from fedmepd.federation.wire import grow, shrink
from fedmepd.methods.method import Tensors
from fedmepd.methods.parts.selection import EXTRA, parts
from fedmepd.training.epoch import Progress
from fedmepd.training.memory import give_back


class FusionDesk:
    """Stands between the server's tasks and a fusion site in this process.

    Class vectors of single cases, the optimizer and the auxiliary decoder stay; weights, anchors and scores leave. What
    both sides hold already does not travel again.

    Args:
        site: does the work.
        half_precision: whether tensors travel as float16. Then changes travel, which float16 is fine enough for, and
            the site goes on with the weights as they arrive at the server.
    """

    def __init__(self, site: FusionSite, half_precision: bool):
        self.site = site
        self._half_precision = half_precision
        self._agreed: frozenset[str] | None = None

    def cases_behind(self) -> dict[str, int]:
        """As :meth:`~fedmepd.federation.site.FederationSite.cases_behind`; of anchors the smallest number of each."""
        return self.site.cases_behind()

    def do(self, task: FusionTask, abort: Abort, progress: Progress | None = None) -> FusionReply:
        """Does a task of the server.

        Raises:
            Aborted: ``abort`` said so.
            FedMEPDError: the task does not fit, the loss is not finite, or the state cannot be written.
        """
        started = time.monotonic()
        self.site.limits.check_round(task.round)
        abort = self.site.limits.in_time(abort)
        self.site.bring_to_before(task.round if task.kind == "fuse" else task.round + 1)
        if task.kind == "test_copy":
            self.site.asked.note(task.kind, task.round)
            copy = ModelCopy(task.modalities, task.tensors)
            reply = FusionReply(task.round, report={"cross_site": self.site.test_copy(copy, task.round, abort)})
        else:
            reply = self._with_weights(task, abort, progress)
        give_back()
        reply.report |= self.site.disclosure.seconds({"seconds": time.monotonic() - started})
        return reply

    def _with_weights(self, task: FusionTask, abort: Abort, progress: Progress | None) -> FusionReply:
        if any(name not in task.tensors for name in task.names) and task.known != self.site.version:
            return FusionReply(task.round, report={"lacks_weights": True})
        self.site.asked.note(task.kind, task.round)
        weights = self._complete(task)
        if task.kind == "fuse":
            return self._fuse(weights, parts(task.tensors, (EXTRA,)), task.round, abort, progress)
        if task.kind == "validate":
            report = {"scores": self.site.validate(weights, task.round, abort)}
        else:
            tested = self.site.test(weights, task.round, abort)
            report = {"scores": tested.scores, "withheld": tested.withheld, "each": tested.each}
        return FusionReply(task.round, self.site.version, report=report)

    def _complete(self, task: FusionTask) -> Tensors:
        """What was sent, and of the rest what the site holds."""
        if self._agreed is None:
            self._agreed = agreed_weights.of_fusion_site(self.site.settings)
        agreed_weights.require_agreed("the fusion site", self.site.settings.method, task.names, self._agreed)
        held = self.site.weights()
        sent = {key: value for key, value in task.tensors.items() if not key.startswith(EXTRA)}
        for key in [*task.names, *sent]:
            if key not in held or sent.get(key, held[key]).shape != held[key].shape or key not in task.names:
                message = f"received {key}, which is no weight of this job: server and site run different versions"
                raise FedMEPDError(message, public=message)
        return {key: sent.get(key, held[key]) for key in task.names}

    def _fuse(
        self, weights: Tensors, extras: Tensors, number: int, abort: Abort, progress: Progress | None
    ) -> FusionReply:
        changes: Tensors = {}

        def settle(before: Tensors, after: Tensors) -> Tensors:
            changes.update({key: grow(*shrink(value - before[key])) for key, value in after.items()})
            return {key: before[key] + change for key, change in changes.items()}

        options: dict[str, Callable] = {"settle": settle} if self._half_precision else {}
        fused = self.site.fuse(weights, number, abort, progress, extras, **options)
        tensors = (changes or fused.weights) | fused.extras
        return FusionReply(
            number,
            self.site.version,
            tensors,
            relative=self._half_precision,
            digests={key: digest(value) for key, value in tensors.items()},
            report={
                "losses": fused.losses,
                "figures": fused.figures,
                "cases": fused.cases,
                "steps": fused.spent.steps,
                "peak_mib": fused.spent.peak_mib,
                "privacy": fused.privacy,
            },
        )


def digest(tensor: Tensor) -> str:
    """A short text that differs for tensors that differ."""
    return hashlib.sha256(tensor.detach().cpu().contiguous().numpy().tobytes()).hexdigest()[:16]
