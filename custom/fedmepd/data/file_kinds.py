"""Which file of a case's folder is which image, and which is the label."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path

from fedmepd.data.cases import LABEL
from fedmepd.data.containment import outside
from fedmepd.data.findings import Finding, error, note, warning
from fedmepd.data.formats import describe_formats
from fedmepd.data.names import kinds_of, kinds_of_file, split_words, words_of
from fedmepd.data.volumes import stem
from fedmepd.errors import SettingsError
from fedmepd.tasks.task import Task

_AMBIGUOUS = "file name that may be two modalities"
TWICE = "two files that look like the same modality"
_UNREAD = "images in a format that is not read"

# Shorter words are one letter away from too many others.
_SHORTEST_WORD = 4
_NEARLY = 0.75


@dataclass(frozen=True)
class Pattern:
    """What a user says of the files of one kind: those that match are it, and no other is.

    Args:
        kind: a modality, or :data:`~fedmepd.data.cases.LABEL`.
        glob: of a file's path below the case's folder, such as ``*_T1c.nii.gz`` or ``4_FLAIR/*/FLAIR.nii.gz``.
    """

    kind: str
    glob: str

    @classmethod
    def read(cls, task: Task, text: str) -> Pattern:
        """Reads ``T1ce=*_T1c.nii.gz``.

        Raises:
            SettingsError: it does not begin with a modality or the label, or has no pattern.
        """
        name, separator, glob = text.partition("=")
        kind = next((one for one in (*task.modalities, LABEL) if one.lower() == name.strip().lower()), None)
        if kind is None or not separator or not glob.strip() or glob.startswith("/") or ".." in Path(glob).parts:
            raise SettingsError(
                f"--pattern {text!r}: expected KIND=PATTERN, such as '{task.modalities[0]}=*_x.nii.gz', with one of "
                f"{', '.join(task.modalities)}, {LABEL}, and a pattern of file names below the folder of a case"
            )
        return cls(kind, glob.strip())

    def __str__(self) -> str:
        return f"{self.kind}={self.glob}"


def matching(folder: Path, patterns: Sequence[Pattern]) -> list[Path]:
    """Returns the files below a case's folder that a pattern with sub-folders names."""
    deep = [pattern.glob for pattern in patterns if "/" in pattern.glob]
    return sorted({file for glob in deep for file in folder.glob(glob) if stem(file) is not None})


def sort_files(
    task: Task,
    folder: Path,
    volumes: Sequence[Path],
    patterns: Sequence[Pattern],
    follow_links: bool,
    label_words: Collection[str] = (),
    varies: Sequence[str] = (),
) -> tuple[dict[str, Path], list[Finding]]:
    """Sorts the files of a case.

    Args:
        task: that the case is of.
        folder: the case's.
        volumes: its NIfTI files.
        patterns: what the user says of them.
        follow_links: whether links may lead out of the folder.
        label_words: what the data set calls its labels, beside the task's words.
        varies: parts of the files' paths that are others in every case.

    Returns:
        the file of each kind, and what was found.
    """
    findings: list[Finding] = []
    of_kind: dict[str, list[Path]] = {}
    passed_over: list[Path] = []
    unfitted: list[tuple[Path, list[str]]] = []
    said = {pattern.kind for pattern in patterns}
    for file in volumes:
        if (problem := outside(file, folder, follow_links)) is not None:
            findings.append(problem)
            continue
        place = file.relative_to(folder).as_posix()
        kinds = list(dict.fromkeys(one.kind for one in patterns if fnmatchcase(place, one.glob)))
        if not kinds:
            kinds = [LABEL] if stem(file) in label_words else kinds_of_file(task, file)
            # A file that may be of a kind that the user has described otherwise is not taken for another kind.
            if said & set(kinds):
                unfitted.append((file, [kind for kind in kinds if kind in said]))
                continue
        if len(kinds) > 1:
            ways = " or ".join(propose(folder, file, kind, varies) for kind in kinds)
            text = (
                f"{file} may be {' or '.join(kinds)}: rename it so that one of these words is left, or say {ways}; the "
                "pattern is for all cases"
            )
            findings.append(error(_AMBIGUOUS, text))
        elif kinds:
            of_kind.setdefault(kinds[0], []).append(file)
        else:
            passed_over.append(file)
    files: dict[str, Path] = {}
    for kind, candidates in of_kind.items():
        plain = [file for file in candidates if not set(split_words(stem(file) or "")) & set(task.variant_words)]
        chosen = plain or candidates
        files[kind] = chosen[0]
        for file in candidates:
            if file not in chosen:
                text = f"{file} is passed over: {chosen[0].name} beside it is the same image without it"
                findings.append(note("variant of an image, passed over", text))
        if len(chosen) > 1:
            ways = " or ".join(propose(folder, file, kind, varies) for file in chosen[:2])
            text = (
                f"{folder}: both {chosen[0].name} and {chosen[1].name} look like {kind}: remove or rename one, or say "
                f"{ways}"
            )
            findings.append(error(TWICE, text))
    findings += (_unfitted(file, kinds, files) for file, kinds in unfitted)
    findings += (_passed_over(task, folder, file, LABEL in files) for file in passed_over)
    findings += _unread_files(task, folder, files)
    return files, findings


def propose(folder: Path, file: Path, kind: str, varies: Sequence[str] = ()) -> str:
    """Returns the option that says of what kind a file is, and the files of the same name in other cases."""
    place = file.relative_to(folder)
    name = place.name
    if name.lower().startswith(folder.name.lower()) and len(name) > len(folder.name):
        name = "*" + name[len(folder.name) :]
    glob = place.with_name(name).as_posix()
    for part in varies:
        glob = glob.replace(part, "*")
    return f"--pattern '{kind}={glob}'"


def _unfitted(file: Path, kinds: Sequence[str], files: Collection[str]) -> Finding:
    """Says of a file that it is of a kind by its name, and fits no pattern of that kind: a warning if none does."""
    of = " or ".join(kinds)
    if any(kind in files for kind in kinds):
        text = f"{file} is passed over: its name says {of}, and another file fits the --pattern for {of}"
        return note("file of another name, passed over", text)
    text = f"{file} is passed over, and the case has no {of}: its name says {of}, but no --pattern for {of} fits it"
    return warning("file that no pattern fits, passed over", text)


def _passed_over(task: Task, folder: Path, file: Path, labelled: bool) -> Finding:
    """Says why a file is none of the case's: a warning if it may be meant."""
    words = split_words(stem(file) or "")
    known = [word for word in words_of(task) if len(word) >= _SHORTEST_WORD]
    meant = {*known, *task.derived_words, *task.label_neighbours, *task.other_label_words}
    # A word may also end in one, as tumorMask does.
    endings = tuple(word for word in task.label_neighbours if len(word) >= _SHORTEST_WORD)
    near_label = any(word in task.label_neighbours or word.endswith(endings) for word in words)
    if not labelled and near_label and not set(words) & set(task.other_label_words):
        text = (
            f"{file} is passed over, and the case has no label: if it is the label, say {propose(folder, file, LABEL)}"
        )
        return warning("file that may be the label, passed over", text)
    for word in words:
        if len(word) >= _SHORTEST_WORD and word not in meant and (near := get_close_matches(word, known, 1, _NEARLY)):
            text = f"{file} is passed over: {word!r} is nearly {near[0]!r}; rename it if that is meant"
            return warning("file name with a word that is nearly a known one", text)
    expected = ", ".join(words_of(task))
    text = (
        f"{file} is passed over: its name has none of the words {expected}, or one that says that it is something else"
    )
    return note("file of another name, passed over", text)


def _unread_files(task: Task, folder: Path, files: Collection[str]) -> Iterator[Finding]:
    """Says which images of a case are not read: a warning if the case has no other file of that kind."""
    for first, count, told in describe_formats(sorted(folder.iterdir())):
        kinds = kinds_of(task, first.name.partition(".")[0])
        lost = not kinds or set(kinds) - set(files)
        text = f"{first}{f' and {count - 1} more' if count > 1 else ''}: not read, since these are {told}"
        yield warning(_UNREAD, text) if lost else note(_UNREAD, text)
