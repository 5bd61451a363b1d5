from __future__ import annotations

from fedmepd.experiments.costs import HEADS, cost_table


def work(steps: int, up: int, peak: float | None) -> dict:
    return {
        "steps": steps,
        "passes": 1.0,
        "seconds": 1.0,
        "bytes_up": up,
        "bytes_down": 2 * up,
        "peak_mib": peak,
        "networks": 1,
    }


def results(name: str, seed: int, seconds: float, steps: int, megabytes: int, peak: float | None) -> dict:
    sites = [{"work": work(steps, megabytes * 10**6, None)}, {"work": work(3 * steps, megabytes * 10**6, None)}]
    server = {"work": work(5, 0, peak)}
    return {"run_name": f"{name}-seed-{seed}", "seed": seed, "seconds": seconds, "sites": sites, "server": server}


def test_medians_by_hand() -> None:
    runs = [
        results("fedavg-p4", 0, 60.0, 10, 1, 512.25),
        results("fedavg-p4", 1, 180.0, 30, 2, 900.0),
        results("fedavg-p4", 2, 120.0, 20, 3, 600.0),
        results("local", 0, 30.0, 10, 0, None),
    ]
    heads, *rows = [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in cost_table(runs)]
    assert heads == list(HEADS)
    # Steps of a run: 10 + 30; the middle of 40, 120 and 80 is 80. MB up: twice 1, 2, 3; down twice that.
    assert rows == [
        ["fedavg-p4", "3", "2.0", "80", "5", "4.0", "8.0", "600", "1"],
        ["local", "1", "0.5", "40", "5", "0.0", "0.0", "-", "1"],
    ]
