"""The tables of docs/results.md and README.md, written from the runs in docs/results.

    python -m benchmarks.results_page --keep OUT    # takes the finished runs of `fedmepd compare run` into docs/results
    python -m benchmarks.results_page               # writes the pages' tables from docs/results

A page says where a table belongs by two comments, `<!-- comparison: NAME -->` and `<!-- end of comparison -->`. What
stands between them is replaced. NAME is `all` (everything that `fedmepd compare show --markdown` prints) or `summary`
(two scores of each method), which may be followed by the names of the methods to show.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedmepd.comparing.comparison import compare
from fedmepd.comparing.gathering import gather
from fedmepd.comparing.run import RunFile
from fedmepd.comparing.sections import summary
from fedmepd.comparing.text import markdown, markdown_table
from fedmepd.errors import FedMEPDError
from fedmepd.evaluation.results import FILE_NAME, HISTORY
from fedmepd.storage import write_text

ROOT = Path(__file__).parents[1]
RUNS = ROOT / "docs" / "results"
PAGES = (ROOT / "docs" / "results.md", ROOT / "README.md")

_PLACE = re.compile(r"(<!-- comparison: (\w+)((?: \S+)*?) -->\n).*?(<!-- end of comparison -->)", re.DOTALL)
# Decimals of what is kept: fewer would no longer fit the means beside them.
_DECIMALS = 7


def keep(paths: Sequence[Path], folder: Path) -> list[Path]:
    """Writes what a comparison reads of finished runs, as NAME/seed-N/results.json and history.json.

    Args:
        paths: as for :func:`fedmepd.comparing.comparison.compare`.
        folder: to write to; runs of the same name and seed are replaced.

    Returns:
        the results.json files.

    Raises:
        FedMEPDError: there are no such runs, or the folder cannot be written.
    """
    written = []
    for name, files in gather(paths).methods.items():
        place = re.sub(r"[^A-Za-z0-9._-]+", "-", name)
        for seed, file in files.items():
            path = folder / place / f"seed-{seed}" / FILE_NAME
            write_text(path, _small(file.run.model_dump(mode="json")))
            write_text(path.with_name(HISTORY), _small(_curves(file)))
            written.append(path)
    return written


def _curves(file: RunFile) -> dict[str, Any]:
    return {owner: curves.model_dump(mode="json", exclude_defaults=True) for owner, curves in file.curves.items()}


def _small(content: Any) -> str:
    def rounded(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: rounded(each) for key, each in value.items()}
        if isinstance(value, list):
            return [rounded(each) for each in value]
        return round(value, _DECIMALS) if isinstance(value, float) else value

    return json.dumps(rounded(content), allow_nan=False, separators=(",", ":")) + "\n"


def filled(text: str, comparison: dict[str, Any]) -> str:
    """Returns a page with its tables.

    Args:
        text: of the page.
        comparison: what :func:`fedmepd.comparing.comparison.compare` returned.

    Raises:
        FedMEPDError: the page asks for a table or a method that does not exist.
    """

    def replaced(place: re.Match) -> str:
        begin, name, methods, end = place.groups()
        if name == "summary":
            table = "\n".join(markdown_table(summary(comparison, _known(methods.split(), comparison["methods"]))))
        elif name == "all":
            # Without its own title, since the page has one.
            table = markdown(comparison, level=1).partition("\n\n")[2].rstrip("\n")
        else:
            raise FedMEPDError(f"comparison: {name}: expected summary or all")
        return f"{begin}{table}\n{end}"

    return _PLACE.sub(replaced, text)


def _known(asked: list[str], methods: list[str]) -> list[str]:
    for name in asked:
        if name not in methods:
            raise FedMEPDError(f"comparison: summary {name}: there are no runs of it, only of {', '.join(methods)}")
    return asked


def has_tables(text: str) -> bool:
    """Whether a page has places for tables."""
    return _PLACE.search(text) is not None


def main(arguments: Sequence[str] | None = None, runs: Path = RUNS, pages: Sequence[Path] = PAGES) -> int:
    """Keeps runs, or writes the pages.

    Args:
        arguments: of the command line.
        runs: folder of the kept runs.
        pages: to write.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.results_page", description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--keep", type=Path, nargs="+", metavar="RUNS", help="take these runs into docs/results instead"
    )
    options = parser.parse_args(arguments)
    try:
        if options.keep:
            kept = keep(options.keep, runs)
            size = sum(path.stat().st_size + path.with_name(HISTORY).stat().st_size for path in kept)
            print(f"kept {len(kept)} runs in {runs}, {size / 1e3:.0f} kB")
            return 0
        comparison = compare([runs])
        for page in pages:
            text = page.read_text(encoding="utf-8")
            if has_tables(text):
                write_text(page, filled(text, comparison))
                print(f"wrote {page}")
            else:
                print(f"{page} has no place for a table")
    except FedMEPDError as error:
        print(f"benchmarks.results_page: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
