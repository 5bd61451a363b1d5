"""Errors that a user can act on. Their message names the file, key or site, and says what to do."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, get_args

from fedmepd.closest import like_path, one_of, question

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic import BaseModel, ValidationError
    from pydantic.fields import FieldInfo
    from pydantic_core import ErrorDetails


# What a message of ours holds at most of content from outside: of one text, and of the whole.
LONGEST_TEXT, LONGEST_MESSAGE = 200, 1000
# The end of what a site tells the others of an error.
LOG_SAYS_MORE = "the site's own log says more"
# A larger number is not written out: Python refuses to, from some thousand digits on.
_MOST_BITS = 2000
# Ends of lines too, and what turns the direction of writing.
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def escaped(text: str) -> str:
    r"""Returns a text in one line, with control characters, and others that steer a terminal, as ``\x1b``."""
    return text if text.isprintable() else "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)


def plain_text(content: object, longest: int = LONGEST_TEXT) -> str:
    """Returns content from outside as a text for logs, results and pages: cut, and with control characters escaped.

    Of what is no text, number or path the type alone is told: a file of some kilobytes can hold lists of the same lists
    whose text would fill the memory.

    >>> plain_text("fine\\n2026-01-01 site-1 is refused")
    'fine\\\\n2026-01-01 site-1 is refused'

    Args:
        content: whatever somebody else sent.
        longest: characters; what is longer ends with three dots.
    """
    if isinstance(content, str):
        text = content
    elif _is_short(content):
        text = str(content)
    else:
        text = f"a value of type {type(content).__name__}"
    return escaped(text if len(text) <= longest else f"{text[: longest - 3]}...")


def _is_short(value: object) -> bool:
    """Whether the text of a value that is no text itself is known to be short."""
    if isinstance(value, int):
        return value.bit_length() <= _MOST_BITS
    return value is None or isinstance(value, float | PurePath)


def require_printable(text: str) -> str:
    """Returns a text from outside that is printed as it is; for schemas.

    Raises:
        ValueError: it has control characters, or others that change how a terminal or a page shows the text around it.
    """
    if not text.isprintable():
        raise ValueError("expected a text without control characters")
    return text


def has_controls(name: str) -> bool:
    """Whether a name has control characters: it would forge lines of a log, or steer a terminal."""
    return _CONTROLS.search(name) is not None


def require_no_controls(name: str) -> str:
    """Returns a name from outside that may be in any script, but has no control characters; for schemas.

    Raises:
        ValueError: it has some.
    """
    if has_controls(name):
        raise ValueError("expected a name without control characters")
    return name


class FedMEPDError(Exception):
    r"""Something that a user can put right; the message says what.

    Messages hold names and values that others chose, and go to logs and terminals. So their control characters are
    written as ``\x1b``, ends of lines too.

    Args:
        message: for the machine's own log; may name cases and files.
        public: what may leave a site: no case names, no paths.
        lines: what follows the message, each in an indented line of its own.

    Attributes:
        message, lines: the parts of the whole message, for an error that adds to it.
    """

    kind = "something is wrong"

    def __init__(self, message: str, public: str | None = None, *, lines: Iterable[str] = ()):
        super().__init__(message)
        self.message, self.lines = escaped(message), tuple(map(escaped, lines))
        self.public = escaped(public or f"{self.kind}; {LOG_SAYS_MORE}")

    def __str__(self) -> str:
        return "\n  ".join((self.message, *self.lines))


class DataError(FedMEPDError):
    """A data folder, case or file cannot be used."""

    kind = "the site's data cannot be used"


class SettingsError(FedMEPDError):
    """A setting is unknown, out of bounds or contradicts another one."""

    kind = "a setting of the site cannot be used"


class CheckpointError(FedMEPDError):
    """A checkpoint or state file cannot be used."""

    kind = "the site's kept state cannot be used"


class _FromOutside(FedMEPDError):
    """Its message holds what others sent, and so is cut."""

    def __init__(self, message: str, public: str | None = None):
        super().__init__(plain_text(message, LONGEST_MESSAGE), public and plain_text(public, LONGEST_MESSAGE))


class UpdateRefused(_FromOutside):
    """A site's update is not taken into the aggregation; the message names site, key and reason."""


class FusionAway(_FromOutside):
    """The fusion site is not there, or could not do its part of a round."""

    kind = "the fusion site is away"


class Aborted(Exception):
    """The run was asked to stop; raised between two training steps."""


_DENIED, _FULL = (errno.EACCES, errno.EPERM), (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def is_of_the_machine(problem: OSError) -> bool:
    """Whether an error is one of rights or of space, which whoever runs this can put right and no code can."""
    return problem.errno in (*_DENIED, *_FULL, errno.EROFS)


def remedy(problem: OSError) -> str:
    """Returns what to do about a file or folder that the operating system refuses, as the end of a sentence."""
    if problem.errno in _DENIED:
        return "give the user who runs this the right to it (`chmod`, `chown`), or choose another folder"
    if problem.errno == errno.EROFS:
        return "it is on a disk that can only be read: choose another folder"
    if problem.errno in _FULL:
        return "free space on that disk, or choose another folder"
    return "choose another folder"


def cannot_read(path: Path, problem: Exception, what: str, kind: str = "text") -> str:
    """Returns the sentence about a user's file that is not there, may not be read, or holds something else.

    Args:
        path: the file.
        problem: what reading it raised.
        what: was expected.
        kind: as which it was to be read, such as YAML.
    """
    if isinstance(problem, FileNotFoundError):
        return f"{path} does not exist: expected {what}{like_path(path)}"
    if isinstance(problem, OSError):
        return f"{path} cannot be read ({problem.strerror}): expected {what}"
    return f"{path} cannot be read as {kind} ({' '.join(str(problem).split())}): expected {what}"


# What a sentence about content from outside holds at most.
_MOST_PROBLEMS, _MOST_MISSING, _LONGEST_VALUE = 5, 5, 80

# By pydantic's name for a problem: what was expected.
_KINDS = {
    "string_type": "a text",
    **dict.fromkeys(("int_type", "int_parsing", "int_parsing_size", "int_from_float"), "a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "a number"),
    "finite_number": "a finite number",
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false"),
    "path_type": "a path as a text",
    "list_type": "a list",
    **dict.fromkeys(("dict_type", "model_type", "model_attributes_type"), "an object of keys and values"),
}
_BOUNDS = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}


def explain(
    error: ValidationError,
    where: str | Callable[[str], str],
    model: type[BaseModel] | None = None,
    elsewhere: Callable[[tuple[str | int, ...]], str] = lambda location: "",
    defaults: bool = False,
) -> str:
    """Says in one line what is wrong with content that a pydantic model refuses.

    Args:
        error: what the model raised.
        where: file, variable or message that holds the content; or a function that names it for a top-level key.
        model: the model; with it, an unknown key is answered with the keys that are known beside it, and a number out
            of bounds with both bounds and the ``unit`` in the field's ``json_schema_extra``.
        elsewhere: says of an unknown key, by its location, where it would be known; empty where it is not.
        defaults: whether the model's defaults are those that count, and are told too.
    """

    def place_of(problem: ErrorDetails) -> str:
        return where if isinstance(where, str) else where(str(next(iter(problem["loc"]), "")))

    # Keys that are missing in one place are one sentence.
    groups: dict[tuple[Any, ...], list[ErrorDetails]] = {}
    problems = error.errors(include_url=False)
    for number, problem in enumerate(problems):
        alike = ("missing", problem["loc"][:-1]) if problem["type"] == "missing" else (number,)
        groups.setdefault((place_of(problem), *alike), []).append(problem)
    parts, before = [], None
    shown = list(groups.items())[:_MOST_PROBLEMS]
    for (place, *_), group in shown:
        text = _missing(group) if group[0]["type"] == "missing" else _sentence(group[0], model, elsewhere, defaults)
        parts.append(text if place == before else f"{place}: {text}")
        before = place
    left = len(problems) - sum(len(group) for _, group in shown)
    return "; ".join([*parts, *([f"{left} more"] if left else [])])


def _missing(problems: Sequence[ErrorDetails]) -> str:
    """The keys that one place lacks."""
    if len(problems) == 1:
        return f"{_shown_key(problems[0]['loc'])} is missing"
    inside = _shown_key(problems[0]["loc"][:-1])
    names = [_shown_key(problem["loc"][-1:]) for problem in problems]
    left = len(names) - _MOST_MISSING
    named = f"{', '.join(names[:_MOST_MISSING])}{f' and {left} more' if left > 0 else ''} are missing"
    return f"{inside}: {named}" if inside else named


def _shown_key(location: Sequence[str | int]) -> str:
    # A key that nobody knows is content from outside too.
    return plain_text(".".join(map(str, location)), _LONGEST_VALUE)


def _sentence(
    problem: ErrorDetails,
    model: type[BaseModel] | None,
    elsewhere: Callable[[tuple[str | int, ...]], str],
    defaults: bool,
) -> str:
    location, value = problem["loc"], problem["input"]
    key = _shown_key(location)
    if problem["type"] == "extra_forbidden":
        if answer := elsewhere(location):
            return f"{key} {answer}"
        known = fields_at(model, location)
        if known and (others := _places(model, location[-1])):
            return f"unknown key {key}{question(others)}"
        return f"unknown key {key}" + (f": {one_of(str(location[-1]), known)}" if known else "")
    # Our own validators' sentences stand as they are; pydantic writes "Value error, " before them.
    own = problem.get("ctx", {}).get("error") if problem["type"] == "value_error" else None
    message = str(own) if own else _expected(problem, _field_at(model, location), defaults)
    if not (isinstance(value, str) or _is_short(value)) or problem["type"] == "json_invalid":
        return f"{key}: {message}" if key else message
    # Cut first: the text may have the size of a file.
    shown = repr(value[:_LONGEST_VALUE] if isinstance(value, str) else value)
    shown = shown if len(shown) <= _LONGEST_VALUE else f"{shown[:_LONGEST_VALUE]}..."
    return f"{key or 'content'} = {shown}: {message}"


def _expected(problem: ErrorDetails, field: FieldInfo | None, defaults: bool) -> str:
    kind, told = _KINDS.get(problem["type"], ""), problem.get("ctx", {})
    bounds = {bound: told[bound] for bound in _BOUNDS if bound in told}
    if not kind and not bounds:
        said = f"{problem['msg'][0].lower()}{problem['msg'][1:]}"
        return said.replace("input should be ", "expected ", 1) if said.startswith("input should be ") else said
    default = None
    if field is not None:
        both = {bound: getattr(each, bound) for each in field.metadata for bound in _BOUNDS if hasattr(each, bound)}
        bounds = both or bounds
        kind = {int: "a whole number", float: "a number"}.get(field.annotation, kind)
        if isinstance(field.json_schema_extra, dict):
            kind += f" of {field.json_schema_extra['unit']}"
        default = field.default if defaults else None
    said = ", ".join(filter(None, [kind, *(f"{_BOUNDS[bound]} {value:.12g}" for bound, value in bounds.items())]))
    return f"expected {said}" + (f"; default: {default:.12g}" if type(default) in (int, float) else "")


def _field_at(model: type[BaseModel] | None, location: tuple[str | int, ...]) -> FieldInfo | None:
    return _fields(model, location).get(location[-1]) if location else None


def fields_at(model: type[BaseModel] | None, location: tuple[str | int, ...]) -> list[str]:
    """Returns the keys that are known where the last key of a location is looked for; none where that is not known."""
    return list(_fields(model, location))


def _places(model: Any, name: str | int) -> list[str]:
    """Returns where a key of this name is known: at the top, and in the sections of the model."""
    fields = getattr(model, "model_fields", {})
    inside = [f"{key}.{place}" for key, field in fields.items() for place in _places(field.annotation, name)]
    return [str(name)] * (name in fields) + inside


def _fields(model: type[BaseModel] | None, location: tuple[str | int, ...]) -> dict[Any, FieldInfo]:
    kind: Any = model
    for part in location[:-1]:
        # Of a list or dictionary, the kind of what it holds.
        fields = getattr(kind, "model_fields", None)
        kind = (
            next(iter(get_args(kind)[-1:]), None) if fields is None else getattr(fields.get(part), "annotation", None)
        )
    return getattr(kind, "model_fields", {})
