"""What a process that trains imports before it can: all of it, once, in a short time, and little that it never uses.

A site is such a process, and so is a server with the fusion site in it. PyTorch comes with this module, so it should
be the first of those that need PyTorch.

``python -m fedmepd.flare.loading`` does it too, for the image of a container: it compiles what is compiled for this
processor, says where that is kept, and ends with 1 if it could not be kept.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import os
import sys
from collections.abc import Iterator

NEEDED = (
    "fedmepd.data.site",
    "fedmepd.evaluation.lesions",
    "fedmepd.federation.site",
    "fedmepd.site_settings",
    "monai.data",
    "monai.inferers",
    "monai.metrics",
    "monai.transforms",
    "nibabel",
)
# What MONAI imports where it is installed, and does without where it is not: for its workflows, figures, downloads, and
# metrics and transforms that nobody here uses. More than half of its time to import.
_OF_MONAI = (
    "ignite",
    "matplotlib",
    "requests",
    "scipy.optimize",
    "scipy.signal",
    "scipy.sparse.linalg",
    "sklearn",
    "tensorboard",
)
# The same for PyTorch's compiler, for models spread over machines. Not every build of PyTorch has them.
_OF_PYTORCH = ("torch.distributed.fsdp", "torch.distributed.tensor")
UNUSED = (*_OF_MONAI, *_OF_PYTORCH)


@functools.cache
def load() -> None:
    """Imports what training and testing need; does nothing when called again.

    To be called before other threads import anything. MONAI comes without its figures, downloads and the few metrics
    and transforms that need one of :data:`UNUSED`: in this process they say that it is not installed. Whoever else
    imports these packages later gets them.
    """
    with _without_collections(), _hidden(UNUSED):
        for name in NEEDED:
            importlib.import_module(name)
        load_optimizers()
        _load_loops()


def load_optimizers() -> None:
    """Imports what the first optimizer of a process makes PyTorch import: its compiler."""
    import torch

    torch.optim.SGD([torch.zeros(1)], lr=1.0)


def _load_loops() -> None:
    """Loads the compiled loops for the precision that training takes on this processor unless a job names another."""
    import torch

    from fedmepd.networks.kernels import attention_compiled, normalisation_compiled
    from fedmepd.training.arithmetic import chosen_precision

    precision = getattr(torch, chosen_precision(torch.device("cpu"), "auto"))
    modules = [attention_compiled, normalisation_compiled]
    # Of sites that start at once on a new machine, half begin with the other module: two processes compile at once.
    for loops in modules if os.getpid() % 2 else reversed(modules):
        loops.prepare(precision)


@contextlib.contextmanager
def _without_collections() -> Iterator[None]:
    # Imports make a million objects that stay. To look through them for garbage, again and again as they grow in
    # number, takes a fifth of the time; afterwards they count as permanent, so that nobody looks at them any more.
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()


@contextlib.contextmanager
def _hidden(packages: tuple[str, ...]) -> Iterator[None]:
    hidden = [name for name in packages if name not in sys.modules]
    # For Python, None means that there is no such module.
    sys.modules.update(dict.fromkeys(hidden))
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


with _without_collections():
    importlib.import_module("torch")


def main() -> int:
    """Loads everything and says where the compiled loops are kept; returns the exit status."""
    load()
    from fedmepd.methods.parts import row_sums
    from fedmepd.networks.kernels import attention_compiled, normalisation_compiled

    # Only servers need these.
    row_sums.prepare()
    folders = {loops.kept() for loops in (attention_compiled, normalisation_compiled, row_sums)}
    if None in folders:
        print(
            "the compiled loops are not kept, so every process compiles for about twenty seconds: set NUMBA_CACHE_DIR "
            "to a folder that can be written",
            file=sys.stderr,
        )
        return 1
    print(f"the compiled loops are kept in {' and '.join(sorted(map(str, folders)))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
