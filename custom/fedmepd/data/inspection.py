"""Checks of a data set, before anything is trained on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from fedmepd.data.case_facts import CaseFacts, case_facts
from fedmepd.data.cases import LABEL, Case
from fedmepd.data.findings import ERROR, WARNING, Finding, error, note, refuse, warning
from fedmepd.data.names import read_case_name, words_of
from fedmepd.data.training_images import ImageMeasures, medians, other_size
from fedmepd.errors import DataError, FedMEPDError, escaped, has_controls
from fedmepd.tasks.labels import IGNORE
from fedmepd.tasks.task import MADE_UP, Task
from fedmepd.text_table import counted

# Decompression releases Python's global lock, so a few threads read several files at a time.
_THREADS = 4


@dataclass(frozen=True)
class Inspection:
    """What the checks of a data set found.

    Args:
        cases: with the conventions by which their labels are read.
        facts: of each case, in the same order.
        of_cases: what was found of each case, in the same order.
        general: what was found of the whole.
    """

    cases: list[Case]
    facts: list[CaseFacts]
    of_cases: list[list[Finding]]
    general: list[Finding]

    @property
    def findings(self) -> list[Finding]:
        """Everything that was found."""
        return [*self.general, *(finding for findings in self.of_cases for finding in findings)]

    def require_good(self) -> None:
        """Raises :class:`~fedmepd.errors.DataError` if there is an error anywhere."""
        refuse(self.findings)

    def without_faulty(self) -> Inspection:
        """Returns the same without the cases that have an error."""
        return self._only([not any(found.severity == ERROR for found in findings) for findings in self.of_cases])

    def only(self, cases: Sequence[Case]) -> Inspection:
        """Returns the same with some of its cases alone."""
        names = {case.name for case in cases}
        return self._only([case.name in names for case in self.cases])

    def measures(self) -> ImageMeasures:
        """What the cases' images look like: the median of every measure."""
        return medians([found.measures for found in self.facts])

    def _only(self, wanted: Sequence[bool]) -> Inspection:
        def kept(values: list) -> list:
            return [value for value, keep in zip(values, wanted, strict=True) if keep]

        return Inspection(kept(self.cases), kept(self.facts), kept(self.of_cases), self.general)


def inspect_cases(
    cases: Sequence[Case],
    *,
    labels: str | None = None,
    option: str = "--labels",
    cache: Path | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    known: Sequence[Finding] = (),
) -> Inspection:
    """Reads all files of the cases and says what is wrong with them.

    Args:
        cases: the cases, all of one task.
        labels: the convention of the labels' values if the user gives it, a name of :attr:`Task.conventions`.
        option: the option by which the user gives it.
        cache: folder to keep what was found of each case in; None: do not keep it.
        progress: called with the number of cases read so far, and of all.
        known: what was found of the whole already.

    Raises:
        DataError: the cache folder cannot be written.
    """
    facts = []
    with ThreadPoolExecutor(_THREADS) as pool:
        for number, case in enumerate(cases, 1):
            try:
                facts.append(case_facts(case, cache, pool))
            except FedMEPDError as problem:
                raise DataError(
                    f"{problem} The cache folder is FEDMEPD_CACHE, or cache in the site's fedmepd.json",
                    public="the site's cache folder cannot be written",
                ) from problem
            progress(number, len(cases))
    of_cases = [
        [*case.findings, *_names(case), *_completeness(case), *_patient(case), *found.findings]
        for case, found in zip(cases, facts, strict=True)
    ]
    read, general = _conventions(cases, facts, labels, of_cases, option)
    _duplicates(read, facts, of_cases)
    _lacking(read, of_cases)
    return Inspection(read, facts, of_cases, [*known, *general, *_voxel_sizes(cases, facts)])


def inspect_labels(
    cases: Sequence[Case],
    *,
    labels: str | None = None,
    option: str = "--labels",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Inspection:
    """Reads the labels of the cases alone, and decides how their values are read as :func:`inspect_cases` does.

    Args:
        cases: each with a label.
        labels: the convention, if the user gives it.
        option: the option by which the user gives it.
        progress: called with the number of labels read so far, and of all.
    """
    facts = []
    with ThreadPoolExecutor(_THREADS) as pool:
        for number, case in enumerate(cases, 1):
            facts.append(case_facts(replace(case, images={}, channels={}), None, pool))
            progress(number, len(cases))
    of_cases = [list(found.findings) for found in facts]
    read, general = _conventions(cases, facts, labels, of_cases, option)
    return Inspection(read, facts, of_cases, general)


def _names(case: Case) -> Iterator[Finding]:
    for name in dict.fromkeys([case.name, case.patient, *(str(path) for path in case.files)]):
        if not is_text(name):
            shown = name.encode("utf-8", "backslashreplace").decode()
            text = f"{shown} has a name that is not UTF-8, as old archives and network drives write them: rename it"
            yield error("name that is not UTF-8", text)
            return
    for name in dict.fromkeys([case.name, case.patient, case.institution or ""]):
        if has_controls(name):
            text = f"{escaped(name)} has control characters in its name: rename it"
            yield error("name with control characters", text)
            return


def is_text(name: str) -> bool:
    """Whether a name can be written: the file system may hold any bytes."""
    return name.isprintable() or not any("\ud800" <= character <= "\udfff" for character in name)


def _completeness(case: Case) -> Iterator[Finding]:
    # A file that is refused may be the image or the label: its own error says what to do.
    if any(found.severity == ERROR for found in case.findings):
        return
    if not case.images:
        words = ", ".join(word for word, kind in words_of(case.task).items() if kind != LABEL)
        yield error("no image", f"case {case.name} has no image: expected file names with one of the words {words}")
    elif case.label is None:
        words = " or ".join(case.task.label_words)
        text = f"case {case.name} has no label: it is for inference only; a label's file name has the word {words}"
        yield note("case without a label, for inference only", text)


# A modality that at most this share of the cases lacks is missed there; in fewer cases than this, none is usual.
_FEW_LACK, _SOME_CASES = 0.2, 5


def _lacking(cases: Sequence[Case], of_cases: list[list[Finding]]) -> None:
    """Names the modality that a few cases lack and all others have."""
    with_images = [(case, findings) for case, findings in zip(cases, of_cases, strict=True) if case.images]
    if len(with_images) < _SOME_CASES:
        return
    for modality in with_images[0][0].task.modalities:
        lacking = [(case, findings) for case, findings in with_images if modality not in case.images]
        if 0 < len(lacking) <= _FEW_LACK * len(with_images):
            for case, findings in lacking:
                there = len(with_images) - len(lacking)
                text = f"case {case.name} has no {modality}, which {there} of {counted(len(with_images), 'case')} have"
                findings.append(note("modality that most other cases have, missing", text))


def _patient(case: Case) -> Iterator[Finding]:
    """An unclear patient is an error for a labelled case: one patient must not be in both training and test."""
    if case.label is not None and case.patient_doubt:
        text = f"case {case.name}: {case.patient_doubt}: write a list cases.csv with a column patient"
        yield error("case in folders that do not tell its patient", text)


_NOT_THE_TASKS = "voxels of another size than the task's"


def for_a_model(findings: Sequence[Finding]) -> list[Finding]:
    """Returns the warnings that matter to a trained model: the voxel size of its training counts, not the task's."""
    return [found for found in findings if found.severity == WARNING and found.kind != _NOT_THE_TASKS]


def _voxel_sizes(cases: Sequence[Case], facts: Sequence[CaseFacts]) -> Iterator[Finding]:
    """Warns of sizes that are not the task's, or not those of most cases, unless the task resamples."""
    sizes = Counter(tuple(sorted(found.spacing)) for found in facts if found.spacing)
    if not sizes or cases[0].task.resampled:
        return
    [(usual, _)] = sizes.most_common(1)
    expected = cases[0].task.voxel_mm
    made_up = all(read_case_name(case.task, case.name).layout == MADE_UP for case in cases)
    if expected and not made_up and other_size(usual, expected):
        most, told = (" x ".join(f"{side:g}" for side in sorted(size)) for size in (usual, expected))
        text = (
            f"most cases have voxels of {most} mm, and those of task {cases[0].task.name} are {told} mm: nothing is "
            "resampled, so models of other sites see them larger or smaller; resample all to that size"
        )
        yield warning(_NOT_THE_TASKS, text)
    others = sum(count for size, count in sizes.items() if other_size(size, usual))
    if others:
        most = " x ".join(f"{side:g}" for side in usual)
        text = (
            f"{others} of {sizes.total()} cases have voxels of another size than {most} mm: nothing is resampled, so "
            "the network sees them larger or smaller; resample all to one size"
        )
        yield warning("cases with voxels of different sizes", text)


_MIXED = "label values of two conventions"


def _conventions(
    cases: Sequence[Case],
    facts: Sequence[CaseFacts],
    given: str | None,
    of_cases: list[list[Finding]],
    option: str = "--labels",
) -> tuple[list[Case], list[Finding]]:
    """Decides how each label is read: as the user says, as the layout says, or, in a plain folder, by its values."""
    if not cases:
        return [], []
    task = cases[0].task
    undecided = [
        found.label_counts.keys()
        for case, found in zip(cases, facts, strict=True)
        if case.convention is None and not case.label_doubt and found.label_counts
    ]
    plain, general = (given, []) if given else _by_values(task, undecided, option)
    any_values = {value for convention in task.conventions.values() for value in convention.classes}
    doubtful = {
        value
        for case, found in zip(cases, facts, strict=True)
        if case.label_doubt
        for value in found.label_counts.keys() & any_values
    }
    decided = []
    for case, found, findings in zip(cases, facts, of_cases, strict=True):
        convention = given or case.convention or (None if case.label_doubt else plain)
        decided.append(replace(case, convention=convention))
        if case.label is not None and case.label_doubt and convention is None:
            text = f"{case.label}: {case.label_doubt}; {_choices(case, doubtful, option)}"
            findings.append(error("label of other classes, by the name of its case or dataset.json", text))
            continue
        if case.label is not None and case.disease:
            text = f"case {case.name}: its name says {case.disease}, whose labels have the classes of task {task.name}"
            findings.append(warning("case of another disease than the task's, by its name", text))
        known = set(case.task.conventions[convention].classes) if convention else any_values
        unknown = sorted(found.label_counts.keys() - known)
        if unknown:
            reads = f"as {case.task.describe_convention(convention)}" if convention else "in any convention"
            elsewhere = case.task.conventions[convention].elsewhere if convention and not case.label_doubt else {}
            hint = "".join(f"; {elsewhere[value]}" for value in unknown if value in elsewhere)
            text = f"{case.label} holds the label values {', '.join(map(str, unknown))}, unknown {reads}{hint}"
            findings.append(error("unknown label value", text))
    return decided, general


def _choices(case: Case, found: set[int], option: str) -> str:
    """What a user may say of a label of unclear values: the conventions that fit the values of all such labels.

    Args:
        case: with the label.
        found: values of all labels of the data set that are as unclear.
        option: the option by which the user says it.
    """
    task = case.task
    if not case.label_choices:
        known = ", ".join(task.conventions)
        return (
            f"if its values are those of one of {known} all the same, say which with {option}, or describe them in a "
            "file and name that"
        )
    fitting = [name for name in case.label_choices if found <= task.conventions[name].classes.keys()]
    choices = [f"{option} {name} ({task.describe_convention(name)})" for name in fitting or case.label_choices]
    return f"say {' or '.join(choices)}"


def _by_values(task: Task, labels: Sequence[set[int]], option: str) -> tuple[str | None, list[Finding]]:
    """Returns the convention that follows from the values of a plain folder's labels, if one does."""
    found = {value for values in labels for value in values}
    # A convention that the user has to name is none of those that the values tell.
    values = {name: set(convention.classes) for name, convention in task.conventions.items() if convention.by_values}
    others = [name for name in task.conventions if name not in values]
    found &= set.union(*values.values())
    fitting = [name for name in values if found <= values[name]]
    if not fitting:
        telling = sorted(found - set.intersection(*values.values()))
        text = (
            f"some labels hold the value {', others '.join(map(str, telling))}: they are of different conventions; "
            "keep such cases in folders of their own"
        )
        if fitting := [name for name in others if found <= task.conventions[name].classes.keys()]:
            text += "; or, if they are of one, say " + " or ".join(
                f"{option} {name} ({task.describe_convention(name)})" for name in fitting
            )
        return None, [error(_MIXED, text)]
    default = task.default_convention
    if default not in fitting:
        if len(fitting) == 1:
            return fitting[0], []
        sources = " and ".join(task.conventions[name].source for name in fitting)
        choices = " or ".join(f"{option} {name} ({task.describe_convention(name)})" for name in fitting)
        text = f"the labels hold {_listed(found | {0})}, which {sources} read differently: say {choices}"
        return None, [error("label values that two conventions read differently", text)]
    classes = task.conventions[default].classes
    unlike = [
        name for name in fitting if any(task.conventions[name].classes[value] != classes[value] for value in found)
    ]
    if unlike:
        choices = " or ".join(f"{option} {name} ({task.describe_convention(name)})" for name in unlike)
        text = (
            f"the labels hold {_listed(found)}, which fit more than one convention: read as "
            f"{task.describe_convention(default)}; say {choices} if they are of that"
        )
        if len(found - {0}) == 1:
            text += "; or, if it stands for several classes together, describe the values in a file"
        return default, [warning("label values that do not tell their convention, read as the task's default", text)]
    return default, []


def _listed(values: set[int]) -> str:
    return ", ".join(map(str, sorted(values)))


def _duplicates(cases: Sequence[Case], facts: Sequence[CaseFacts], of_cases: list[list[Finding]]) -> None:
    """Finds volumes that are in two cases; the finding belongs to the later case."""
    first: dict[str, str] = {}
    for case, found, findings in zip(cases, facts, of_cases, strict=True):
        for kind, digest in tell_tale(found).items():
            other = first.setdefault(digest, case.name)
            if other != case.name:
                text = f"the {kind} of case {case.name} is that of case {other}: remove one of the two"
                findings.append(error("same content under two names", text))
                break


def tell_tale(facts: CaseFacts) -> dict[str, str]:
    """Returns the digests that identify a case under any name: of its images, and of a label with tumour."""
    tumour = any(value for value in facts.label_counts)
    return {kind: digest for kind, digest in facts.digests.items() if kind != LABEL or tumour}


def class_counts(case: Case, facts: CaseFacts) -> Counter[str]:
    """Returns the voxels of every class in a case's label, or of what it tells; empty without one."""
    if case.convention is None:
        return Counter()
    numbers, counts = case.task.conventions[case.convention].classes, Counter()
    for value, voxels in facts.label_counts.items():
        if value in numbers:
            counts[case.task.meaning(case.convention, numbers[value])] += voxels
    return counts


def tumour_millilitres(case: Case, facts: CaseFacts) -> float:
    """Returns the volume of all that a case's label calls another class than the background."""
    x, y, z = facts.label_spacing or facts.spacing or (0, 0, 0)
    classes = case.task.conventions[case.convention].classes if case.convention else {}
    tumour = [value for value in facts.label_counts if classes.get(value, value) not in (0, IGNORE)]
    return sum(facts.label_counts[value] for value in tumour) * x * y * z / 1000
