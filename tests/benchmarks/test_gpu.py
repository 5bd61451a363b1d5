"""The command on the processor with tiny sizes, and its parts."""

from __future__ import annotations

import argparse
import json

import pytest
import torch

from benchmarks import gpu
from benchmarks.gpu_parts import Segmenting, Steps, ratios
from benchmarks.gpu_tables import tables
from benchmarks.ways import PRODUCT, STRAIGHTFORWARD
from fedmepd.storage import save_tensors

SPREAD = {"median", "lowest", "highest"}


def options(*given: str) -> argparse.Namespace:
    found = gpu._parser().parse_args(["--device", "cpu", "--quick", "--threads", "1", *given])
    found.width, found.crop, found.larger, found.steps = 4, 24, 32, 1
    return found


def test_as_a_user_runs_it(tmp_path, capsys) -> None:
    """One step in each arithmetic, and an epoch of cases that are loaded."""
    report = tmp_path / "gpu.json"
    given = ["--device", "cpu", "--quick", "--threads", "1", "--json", str(report), "--subset", "T1ce"]
    given += ["--part", "agreement", "--part", "loading", "--minutes", "10"]
    assert gpu.main(given) == 0
    content = json.loads(report.read_text())
    assert content["benchmark"] == "gpu" and (content["width"], content["crop"], content["device"]) == (4, 24, "cpu")
    *agreement, loading = content["rows"]
    assert [row["arithmetic"] for row in agreement] == ["float64", "float32", "bfloat16"]
    # On one device both are the same, but for the arithmetic.
    assert [row["vector"] > 1e-3 for row in agreement] == [False, False, True]
    assert loading["modalities"] == ["T1ce"] and 0 <= loading["product"]["waiting_share"] < 1
    printed = capsys.readouterr()
    assert "| bfloat16 " in printed.out and "| steps alone " in printed.out and str(report) in printed.out
    assert "loading 24 bfloat16, T1ce: done" in printed.err


def test_without_a_gpu_the_user_is_told_what_to_do(capsys) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(SystemExit):
        gpu.main([])
    assert "PyTorch finds no GPU: expected one, or --device cpu --quick" in capsys.readouterr().err


def test_what_is_done_first(tmp_path) -> None:
    """Agreement, then what every comparison needs; what takes long to compile comes last."""
    parts = gpu.parts(options(), tmp_path)
    kinds = [part.about["part"] for part in parts]
    assert kinds[:3] == ["agreement"] * 3 and kinds[11:12] == ["loading"] and kinds[12:17] == ["segmenting"] * 5
    steps = [part.about for part in parts if part.about["part"] == "step"]
    assert [row["way"] for row in steps[:8]] == ["straightforward", "product"] * 4
    assert [(row["crop"], row["precision"]) for row in steps[:8:2]] == [
        (24, "float32"), (24, "bfloat16"), (32, "float32"), (32, "bfloat16"),
    ]  # fmt: skip
    compiled = ["torch.compile" in row["way"] for row in steps]
    assert compiled == sorted(compiled) and sum(compiled) == 3 * 2 * 2
    # No row twice.
    assert len({json.dumps(part.about) for part in parts}) == len(parts)
    some = gpu.parts(options("--way", "product as a CUDA graph", "--part", "step", "--subset", "T1ce"), tmp_path)
    assert {part.about["way"] for part in some} == {"straightforward", "product", "product as a CUDA graph"}


def test_steps_are_compared_with_the_straightforward_formulation() -> None:
    steps = Steps(options())
    plain = steps.part(STRAIGHTFORWARD, ("T1ce",), 16, "float32").measure()
    product = steps.part(PRODUCT, ("T1ce",), 16, "float32").measure()
    assert product["seconds"].keys() == SPREAD and product["peak_mib"] is None
    ratio = plain["seconds"]["median"] / product["seconds"]["median"]
    assert product["ratio"] == product["ratio_float32"] == ratio and plain["ratio"] == 1
    steps._plain[("T1ce",), 16, "float32"]["loss"] *= 1.2
    with pytest.raises(RuntimeError, match="first loss"):
        steps.part(PRODUCT, ("T1ce",), 16, "float32").measure()


def test_ratios_by_hand() -> None:
    """Of the same precision, and of float32; none of what was not measured."""
    half, plain_half, plain = ({"seconds": {"median": s}, "peak_mib": m} for s, m in ((2, 10), (4, 30), (6, 50)))
    assert ratios(half, plain_half, plain) == {"ratio": 2, "ratio_float32": 3, "ratio_memory": 3}
    assert ratios(half, None, plain) == {"ratio": None, "ratio_float32": 3, "ratio_memory": None}
    assert ratios(half | {"peak_mib": None}, plain, None) == {"ratio": 3, "ratio_float32": None, "ratio_memory": None}


def test_segmenting(tmp_path) -> None:
    """Two windows of 16 over 24 voxels."""
    images = torch.randn(4, 24, 16, 16, generator=torch.Generator().manual_seed(0))
    label = torch.zeros(24, 16, 16, dtype=torch.int64)
    save_tensors(tmp_path / "case.pt", {"modalities": ["FLAIR", "T1ce", "T1", "T2"], "images": images, "label": label})
    plain, product, *_ = Segmenting(options(), tmp_path).parts(("T1ce",), ("float32",))
    assert plain.about["side"] == "straightforward" and product.about["precision"] == "float32"
    first, second = plain.measure(), product.measure()
    assert first["lowest_dice"] == 1 and second["lowest_dice"] > 0.98
    assert second["ratio"] == first["seconds"]["median"] / second["seconds"]["median"]


def test_tables_say_why_there_is_nothing() -> None:
    about = {"part": "step", "way": "product", "modalities": ["T1"], "crop": 80, "precision": "float32"}
    spread = {"median": 0.25, "lowest": 0.2, "highest": 0.5}
    rows = [
        about | {"seconds": spread, "peak_mib": 1234.4, "ratio": 2.0, "ratio_float32": None, "ratio_memory": 3.0},
        about | {"failed": "RuntimeError: a | b"},
        about | {"left_out": "no time"},
        about | {"seconds": spread, "peak_mib": None, "graph_breaks": 3},
        {"part": "loading", "modalities": ["T1"], "failed": "no disk"},
        {"part": "agreement", "arithmetic": "float64", "modalities": ["T1"], "loss": 1e-6, "cosine": 0.5},
        {"part": "segmenting", "side": "cropped", "modalities": ["T1"], "precision": "float32", "left_out": "no time"},
    ]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in tables(rows).splitlines() if "|" in line]
    start = ["product", "T1", "80", "float32"]
    assert [*start, "250.0 (200.0-500.0)", "1234", "2.00", "", "3.00", ""] in cells
    assert [*start, "", "", "", "", "", "RuntimeError: a / b"] in cells
    assert [*start, "", "", "", "", "", "left out: no time"] in cells
    assert [*start, "250.0 (200.0-500.0)", "", "", "", "", "3 graph breaks"] in cells
    assert ["", "", "", "", "", "no disk"] in cells
    assert ["float64", "1.0e-06", "", "", "", "0.5000", ""] in cells
    assert ["cropped", "T1", "float32", "", "", "", "", "left out: no time"] in cells
