"""The tables of docs/results.md, docs/choosing.md and README.md, written from the runs in docs/results.

    python -m benchmarks.results_page --keep NAME OUT    # takes the finished runs of `fedmepd compare run` in OUT
                                                         # into docs/results/NAME
    python -m benchmarks.results_page                    # writes the pages' tables and figures from docs/results

A page says where something belongs by two comments, `<!-- comparison: NAME KIND -->` and `<!-- end of comparison -->`.
What stands between them is replaced as soon as there are runs. NAME is a folder below docs/results, or several of them
joined by `+`. KIND is one of

    all             everything that `fedmepd compare show --markdown` prints, and what is missing of the plan
    summary         two scores of each method, and how they were found
    sentences       what has been shown of each method against the reference, and how
    took            how long each run took
    convergence     whether validation still rose at the end
    figure WHICH    a picture: heat_map, differences, curves or cases

It may be followed by `against=METHOD`, the reference, and, with `summary` and `sentences`, by the names of the methods
to show. What
follows a `|` becomes a heading, with the command that repeats the runs: it is not there before there are runs.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.measure import command
from benchmarks.results_figures import FIGURES, draw
from benchmarks.results_kept import keep
from benchmarks.results_sections import convergence, took
from fedmepd.comparing.comparison import compare
from fedmepd.comparing.gathering import RunsMissing
from fedmepd.comparing.sections import summary
from fedmepd.comparing.text import markdown, markdown_table
from fedmepd.errors import FedMEPDError
from fedmepd.evaluation.results import FILE_NAME, HISTORY
from fedmepd.experiments.plan import read_plan
from fedmepd.storage import write_atomically, write_text
from fedmepd.text_table import counted

ROOT = Path(__file__).parents[1]
RUNS = ROOT / "docs" / "results"
PLANS = ROOT / "benchmarks" / "plans"
PAGES = (ROOT / "docs" / "results.md", ROOT / "docs" / "choosing.md", ROOT / "README.md")

_OF_METHODS = ("summary", "sentences")
KINDS = ("all", *_OF_METHODS, "took", "convergence", "figure")

_PLACE = re.compile(r"(<!-- comparison: ([^\n]*?) -->\n)(.*?)(<!-- end of comparison -->)", re.DOTALL)


@dataclass(frozen=True)
class Place:
    """What a page asks for.

    Attributes:
        names: of comparisons, folders of kept runs.
        kind: one of :data:`KINDS`.
        figure: which one.
        against: the reference; empty: fedmepd.
        methods: to show; none: all.
        heading: above it; empty: none.
    """

    names: tuple[str, ...]
    kind: str
    figure: str = ""
    against: str = ""
    methods: tuple[str, ...] = ()
    heading: str = ""

    @classmethod
    def read(cls, text: str) -> Place:
        """Reads the text of a comment.

        Raises:
            FedMEPDError: it is not understood.
        """
        asked, _, heading = text.partition("|")
        words = [word for word in asked.split() if not word.startswith("against=")]
        against = "".join(word.removeprefix("against=") for word in asked.split() if word.startswith("against="))
        names, kind, *others = *words, "", ""
        others = [word for word in others if word]
        if kind not in KINDS:
            raise FedMEPDError(f"comparison: {text}: expected a name, then one of {', '.join(KINDS)}")
        figure = others.pop(0) if kind == "figure" and others else ""
        if (kind == "figure" and figure not in FIGURES) or (others and kind not in _OF_METHODS):
            raise FedMEPDError(
                f"comparison: {text}: expected figure with one of {', '.join(FIGURES)}, and methods with "
                f"{' and '.join(_OF_METHODS)} alone"
            )
        return cls(tuple(names.split("+")), kind, figure, against, tuple(others), heading.strip())


@dataclass
class Filled:
    """A page with its tables.

    Attributes:
        text: of the page.
        figures: SVG files by their paths.
        waits: sentences on the places that stay as they are, because runs are missing.
    """

    text: str
    figures: dict[Path, bytes] = field(default_factory=dict)
    waits: list[str] = field(default_factory=list)


class Pages:
    """Fills pages from kept runs.

    Args:
        runs: folder of the kept runs.
        draws: of the bootstrap; None: as many as `fedmepd compare show` takes.
    """

    def __init__(self, runs: Path, draws: int | None = None):
        self._runs = runs
        self._draws = {} if draws is None else {"draws": draws}
        self._compared: dict[tuple[Any, ...], dict[str, Any]] = {}

    def filled(self, page: Path) -> Filled:
        """Returns a page with its tables and figures.

        Raises:
            FedMEPDError: it asks for something that does not exist, or the runs that are there do not fit together.
        """
        made = Filled("")

        def replaced(found: re.Match) -> str:
            begin, text, before, end = found.groups()
            place = Place.read(text)
            try:
                missing = self._missing(place)
                if not missing:
                    return f"{begin}{_heading(place)}{self._content(place, page, made)}\n{end}"
                made.waits.append(f"{page.name}: {text}: waits for finished runs of {missing}")
            except RunsMissing as error:
                made.waits.append(f"{page.name}: {text}: waits: {error}")
            return found.group(0)

        made.text = _PLACE.sub(replaced, page.read_text(encoding="utf-8"))
        return made

    def _missing(self, place: Place) -> str:
        for name in place.names:
            if not any((self._runs / name).rglob(FILE_NAME)):
                return name
        there = self._comparison(place)["methods"] if place.methods else []
        return ", ".join(name for name in place.methods if name not in there)

    def _comparison(self, place: Place) -> dict[str, Any]:
        key = place.names, place.against
        if key not in self._compared:
            folders = [self._runs / name for name in place.names]
            self._compared[key] = compare(folders, place.against or None, **self._draws)
        return self._compared[key]

    def _content(self, place: Place, page: Path, made: Filled) -> str:
        comparison = self._comparison(place)
        if place.kind == "all":
            # Without its own title, since the page has one.
            content = markdown(comparison, level=3).partition("\n\n")[2].rstrip("\n")
            return _waited_for(place.names, comparison) + content
        if place.kind == "summary":
            table = "\n".join(markdown_table(summary(comparison, place.methods)))
            seeds = len(comparison["seeds"])
            return f"{table}\n\nMean ± standard deviation over {counted(seeds, 'seed')}. {_how(comparison)}"
        if place.kind == "sentences":
            return f"{_sentences(comparison, place.methods)}\n\n{_how(comparison)}"
        if place.kind in ("took", "convergence"):
            section = took(comparison) if place.kind == "took" else convergence(comparison)
            return "\n\n".join(["\n".join(markdown_table(section)), *section.notes])
        reference = f"-against-{place.against}" if place.against else ""
        file = self._runs / "+".join(place.names) / f"{place.figure}{reference}.svg"
        made.figures[file] = draw(place.figure, comparison)
        link = Path(os.path.relpath(file, page.parent)).as_posix()
        return f"![{FIGURES[place.figure]}]({link})"


def _heading(place: Place) -> str:
    if not place.heading:
        return ""
    commands = "\n".join(f"    fedmepd compare run benchmarks/plans/{name}.yaml OUT" for name in place.names)
    return f"### {place.heading}\n\n{commands}\n\n"


def _sentences(comparison: dict[str, Any], methods: Sequence[str]) -> str:
    """What has been shown, as a list; in the order of the methods, if some are named."""
    found = comparison["differences"]
    return "\n".join(f"- {found[name]['sentence']}" for name in methods or found)


def _waited_for(names: Sequence[str], comparison: dict[str, Any]) -> str:
    """Says which methods of the plans have no finished runs."""
    plans = [read_plan(file, None) for file in (PLANS / f"{name}.yaml" for name in names) if file.exists()]
    planned = list(dict.fromkeys(choice.name for plan in plans for choice in plan.choices()))
    missing = [name for name in planned if name not in comparison["methods"]]
    if not missing:
        return ""
    there = f"{len(planned) - len(missing)} of the plan's {len(planned)} methods are in the tables."
    return f"{there} The runs of {', '.join(missing)} are not finished.\n\n"


def _how(comparison: dict[str, Any]) -> str:
    return " ".join(f"{sentence[0].upper()}{sentence[1:]}." for sentence in comparison["design"]["about_means"])


def write_pages(runs: Path = RUNS, pages: Sequence[Path] = PAGES) -> list[str]:
    """Writes tables and figures into the pages; returns lines on what was done."""
    said, filler = [], Pages(runs)
    for page in pages:
        if not has_tables(page.read_text(encoding="utf-8")):
            said.append(f"{page} has no place for a table")
            continue
        made = filler.filled(page)
        for file, content in made.figures.items():
            write_atomically(file, lambda opened, content=content: opened.write(content))
        write_text(page, made.text)
        said += [f"wrote {page}", *made.waits]
    return said


def has_tables(text: str) -> bool:
    """Whether a page has places for tables."""
    return _PLACE.search(text) is not None


@command
def main(arguments: Sequence[str] | None = None, runs: Path = RUNS, pages: Sequence[Path] = PAGES) -> int:
    """Keeps runs, or writes the pages.

    Args:
        arguments: of the command line.
        runs: folder of the kept runs.
        pages: to write.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.results_page", description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--keep", nargs=2, metavar=("NAME", "RUNS"), help="take these runs into docs/results/NAME instead"
    )
    options = parser.parse_args(arguments)
    if options.keep:
        name, place = options.keep
        kept = keep([Path(place)], runs / name)
        size = sum(path.stat().st_size + path.with_name(HISTORY).stat().st_size for path in kept)
        print(f"kept {len(kept)} runs in {runs / name}, {size / 1e3:.0f} kB")
        return 0
    print("\n".join(write_pages(runs, pages)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
