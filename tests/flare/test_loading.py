"""What is imported can only be seen in a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

SITE = """
import gc, json, sys
from pathlib import Path
from fedmepd.flare import loading
import fedmepd.flare.executor, fedmepd.flare.filters
loading.load()
loading.load()
loaded = set(sys.modules)
from tests.federation.drive import make_site, make_server
from tests.tiny import SITES, COUNTS, Tiny, never, settings
from fedmepd.federation.exchange import Payload
of = settings(rounds=1, evaluation={"every": 1}, augmentation={"rotation_degrees": 10, "intensity": 0.1})
folder = Path(sys.argv[1])
# What a site draws and notes for its own people comes after the training, and may take what it needs.
from fedmepd.federation.diary import Diary
for method in ("better", "end_round", "end_test"):
    setattr(Diary, method, lambda *_: None)
site = make_site(Tiny(folder), of, folder, "site-1")
known = set(sys.modules)
site.profile()
site.train(Payload(1), never)
site.test(Payload(1), never)
working = set(sys.modules)
import torch
assert torch.compile(lambda x: 2 * x, backend="eager")(torch.ones(1)).item() == 2
import torch.distributed.tensor, sklearn.cluster, scipy.signal, scipy.optimize, matplotlib.figure, tensorboard
print(json.dumps({
    "loaded": sorted(loaded), "later": sorted(working - known), "working": sorted(working), "collects": gc.isenabled()
}))
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The modules of a process that has loaded, trained, validated and tested as a site's process does."""
    command = [sys.executable, "-c", SITE, str(tmp_path_factory.mktemp("site"))]
    finished = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout.splitlines()[-1])


def test_a_site_imports_nothing_that_it_never_uses(site):
    # At the end of it the process could import each of them: they are installed.
    unused = (
        "ignite",
        "matplotlib",
        "sklearn",
        "tensorboard",
        "scipy.signal",
        "scipy.optimize",
        "torch.distributed.tensor",
    )
    assert not [name for name in site["working"] if name.startswith(unused)]
    assert "fedmepd.federation.server" not in site["loaded"]


def test_nothing_is_left_to_import_when_the_training_begins(site):
    large = {"torch._dynamo", "torch._inductor", "sympy", "monai.transforms", "monai.data", "monai.inferers", "nibabel"}
    assert large | {"monai.metrics"} <= set(site["loaded"])
    packages = {name.partition(".")[0] for name in site["loaded"]}
    later = {name.partition(".")[0] for name in site["later"]}
    assert not later - packages - sys.stdlib_module_names
    assert not [name for name in site["later"] if name.startswith(("monai", "scipy", "nibabel", "fedmepd"))]


def test_garbage_is_collected_again(site):
    assert site["collects"]


def test_the_command_says_where_compiled_loops_are_kept():
    """For the image of a container; with Numba switched off nothing can be kept."""
    command = [sys.executable, "-m", "fedmepd.flare.loading"]
    kept = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300)
    folders = kept.stdout.strip().removeprefix("the compiled loops are kept in ").split(" and ")
    assert kept.returncode == 0
    for loops in ("attention_compiled", "normalisation_compiled", "row_sums"):
        assert [file for folder in folders for file in Path(folder).glob(f"{loops}.*.nbi")]
    environment = os.environ | {"NUMBA_DISABLE_JIT": "1"}
    lost = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=300)
    assert lost.returncode == 1 and lost.stderr.count("\n") == 1 and "set NUMBA_CACHE_DIR" in lost.stderr
