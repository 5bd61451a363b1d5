"""Whether both sides compute the same: outputs, loss and gradients of one step, before anything is measured.

LeakyReLU has a kink: where a value lies nearer to 0 than the rounding error, chance takes its slope for 1 or for 0.2.
That happens at a share of the voxels as large as the rounding error, and the gradient, a sum with mixed signs over the
voxels, changes by about the square root of it: 1e-3 in float32 and 0.2 in bfloat16, in any implementation. So the
formulas are compared in float64, on a smaller crop, and the measured arithmetic by the gradient's norm.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor

from benchmarks.measure import table
from benchmarks.straightforward import Straightforward
from benchmarks.task import Product, Task, synchronise

# Side of the crops that are compared in float64: it takes several times as long, and twice the memory.
FLOAT64_CROP = 32


class Disagreement(Exception):
    """The two sides do not compute the same."""


@dataclass(frozen=True)
class Agreement:
    """How far the product is from the straightforward formulation after one step from the same weights.

    Attributes:
        loss: relative difference.
        probability: mean absolute difference of the class probabilities.
        norm: relative difference of the norms of the whole gradient.
        vector: norm of the difference of the whole gradients, relative.
        cosine: between the whole gradients.
    """

    loss: float
    probability: float
    norm: float
    vector: float
    cosine: float

    def text(self) -> str:
        """One line."""
        return (
            f"loss {self.loss:.1e}, probabilities {self.probability:.1e}, gradient: norm {self.norm:.1e}, "
            f"vector {self.vector:.1e}, cosine {self.cosine:.4f}"
        )


# Highest differences allowed, by arithmetic. In float64 the loss may weigh its classes in float32.
BOUNDS = {
    "float64": {"loss": 1e-6, "probability": 1e-9, "norm": 1e-6, "vector": 1e-6},
    "float32": {"loss": 1e-5, "probability": 1e-5, "norm": 1e-3, "vector": 1e-2},
    "bfloat16": {"loss": 1e-2, "probability": 1e-2, "norm": 0.02},
}


@dataclass(frozen=True)
class _Step:
    loss: float
    segmentation: Tensor
    gradients: dict[str, Tensor]


def compare(task: Task, slack: float = 1.0) -> dict[str, dict[str, float]]:
    """Compares both sides, without dropout, and prints what was found.

    Args:
        task: what is to be measured.
        slack: factor on the bounds of the gradient in float32 and bfloat16, for tiny crops.

    Returns:
        fields of :class:`Agreement`: of the product by arithmetic, such as ``bfloat16``; and of the straightforward
        formulation itself, ``straightforward float32`` against float64.

    Raises:
        Disagreement: a difference is above its bound in :data:`BOUNDS`.
    """
    task = replace(task, dropout=0.0)
    small = replace(task, precision="float32", crop=min(task.crop, FLOAT64_CROP))
    exact = replace(small, dtype=torch.float64)
    found: dict[str, Agreement] = {}

    def note(name: str, agreement: Agreement) -> None:
        found[name] = agreement
        print(f"{' '.join(task.modalities)}, {name}: {agreement.text()}", flush=True)

    reference = _step(exact.straightforward(), exact)
    note("float64", difference(reference, _step(exact.product(), exact)))
    check(found["float64"], "float64")
    note("straightforward float32", difference(reference, _step(small.straightforward(), small)))
    reference = _step(task.straightforward(), task)
    for arithmetic in dict.fromkeys(("float32", task.arithmetic())):
        product = replace(task, precision=arithmetic).product()
        note(arithmetic, difference(reference, _step(product, task)))
        check(found[arithmetic], arithmetic, slack)
    return {name: asdict(agreement) for name, agreement in found.items()}


def with_processor(task: Task, arithmetic: str) -> Agreement:
    """Compares one step of the product on a GPU with one on the processor, without dropout, on a small crop.

    Args:
        task: of the GPU.
        arithmetic: of the GPU: ``float64``, compared with float64 on the processor; ``float32`` or ``bfloat16``, both
            compared with float32.
    """
    there = replace(
        task,
        dropout=0.0,
        crop=min(task.crop, FLOAT64_CROP),
        dtype=torch.float64 if arithmetic == "float64" else torch.float32,
        precision="bfloat16" if arithmetic == "bfloat16" else "float32",
    )
    here = replace(there, device="cpu", precision="float32")
    return difference(_step(here.product(), here), _step(there.product(), there))


def worst(agreements: list[dict[str, dict[str, float]]]) -> str:
    """Returns a table of the largest differences (and the lowest cosine) among several results of :func:`compare`."""
    rows = []
    for name in agreements[0]:
        of = [agreement[name] for agreement in agreements]
        highest = [f"{max(one[key] for one in of):.1e}" for key in ("loss", "probability", "norm", "vector")]
        rows.append([name, *highest, f"{min(one['cosine'] for one in of):.4f}"])
    return table(["arithmetic", "loss", "probabilities", "gradient: norm", "vector", "cosine"], rows)


def _step(side: Straightforward | Product, task: Task) -> _Step:
    """One step on the task's first crop."""
    [batch] = task.batches(1)
    # Not in TensorFloat-32, PyTorch's choice for convolutions on a GPU: that is no float32.
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        loss = side.step(batch, keep=True)
        synchronise(task.device)
    return _Step(loss, side.segmentation.cpu(), {name: of.cpu() for name, of in side.gradients().items()})


def difference(reference: _Step, other: _Step) -> Agreement:
    """Compares two steps; gradients over the weights that the second has."""
    first, second = (
        torch.cat([step.gradients[name].flatten().double() for name in sorted(other.gradients)])
        for step in (reference, other)
    )
    norm = first.norm()
    return Agreement(
        loss=abs(other.loss / reference.loss - 1),
        probability=(reference.segmentation - other.segmentation).abs().double().mean().item(),
        norm=abs(second.norm() / norm - 1).item(),
        vector=((first - second).norm() / norm).item(),
        cosine=(torch.dot(first, second) / norm / second.norm()).item(),
    )


def check(agreement: Agreement, arithmetic: str, slack: float = 1.0) -> None:
    """Raises :class:`Disagreement` if a difference is above its bound; NaN is."""
    for name, bound in BOUNDS[arithmetic].items():
        bound *= slack if name in ("norm", "vector") else 1
        value = getattr(agreement, name)
        if not value <= bound:
            raise Disagreement(
                f"{arithmetic}: {name} differs by {value:.1e}, allowed is {bound:.1e}: {agreement.text()}"
            )
