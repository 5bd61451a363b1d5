from __future__ import annotations

import pickle
import time
from pathlib import Path
from typing import Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from fedmepd.errors import (
    CheckpointError,
    DataError,
    FedMEPDError,
    FusionAway,
    SettingsError,
    UpdateRefused,
    explain,
    has_controls,
    plain_text,
)


class Site(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str
    cases: int = Field(1, ge=1)

    @field_validator("name")
    @classmethod
    def _lower(cls, value: str) -> str:
        if value != value.lower():
            raise ValueError("Names are written in small letters")
        return value


class Plan(BaseModel):
    model_config = ConfigDict(extra="forbid")

    sites: list[Site]
    by_name: dict[str, Site] = {}
    best: Site | None = None


def refusal(content: object) -> ValidationError:
    with pytest.raises(ValidationError) as caught:
        Plan.model_validate(content)
    return caught.value


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({}, "plan.yaml: sites is missing"),
        (7, "plan.yaml: content = 7: expected an object of keys and values"),
        ({"sites": "x" * 500}, f"plan.yaml: sites = '{'x' * 79}...: expected a list"),
        (
            {"sites": [], "site": 1},
            "plan.yaml: unknown key site: expected one of sites, by_name, best; did you mean sites?",
        ),
        (
            {"sites": [{"name": "a", "case": 1}]},
            "plan.yaml: unknown key sites.0.case: expected one of name, cases; did you mean cases?",
        ),
        (
            {"sites": [], "by_name": {"b": {"name": "a", "case": 1}}},
            "plan.yaml: unknown key by_name.b.case: expected one of name, cases; did you mean cases?",
        ),
        ({"sites": [{"name": "A"}]}, "plan.yaml: sites.0.name = 'A': Names are written in small letters"),
        ({"sites": {"a": 1}}, "plan.yaml: sites: expected a list"),
        (
            {"sites": [{"name": "a", "cases": 0}, {"name": 1}]},
            "plan.yaml: sites.0.cases = 0: expected a whole number, at least 1; sites.1.name = 1: expected a text",
        ),
    ],
)
def test_names_place_key_value_and_what_was_expected(content: object, expected: str) -> None:
    assert explain(refusal(content), "plan.yaml", Plan) == expected


class Machine(BaseModel):
    memory: float = Field(0.5, gt=0, le=1_000_000, json_schema_extra={"unit": "GiB"})
    threads: int = Field(4, ge=1, lt=64)
    device: Literal["cpu", "cuda"] = "cpu"
    used: bool = True
    name: str = Field("", max_length=3)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"memory": 0}, "memory = 0: expected a number of GiB, above 0, at most 1000000; default: 0.5"),
        ({"memory": "1 GiB"}, "memory = '1 GiB': expected a number of GiB, above 0, at most 1000000; default: 0.5"),
        ({"memory": None}, "memory = None: expected a number of GiB, above 0, at most 1000000; default: 0.5"),
        ({"threads": 64}, "threads = 64: expected a whole number, at least 1, below 64; default: 4"),
        ({"threads": 1.5}, "threads = 1.5: expected a whole number, at least 1, below 64; default: 4"),
        ({"device": "gpu"}, "device = 'gpu': expected 'cpu' or 'cuda'"),
        ({"used": 7}, "used = 7: expected true or false"),
        ({"name": "four"}, "name = 'four': string should have at most 3 characters"),
    ],
)
def test_bounds_unit_and_default_of_a_number(content: dict, expected: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Machine.model_validate(content)
    assert explain(caught.value, "machine.json", Machine, defaults=True) == f"machine.json: {expected}"


def test_without_the_model_the_bound_that_was_missed() -> None:
    with pytest.raises(ValidationError) as caught:
        Machine.model_validate({"threads": 64})
    assert explain(caught.value, "machine.json") == "machine.json: threads = 64: expected below 64"


def test_an_unknown_key_without_the_model() -> None:
    assert explain(refusal({"sites": [], "site": 1}), "plan.yaml") == "plan.yaml: unknown key site"


def test_a_key_that_is_known_elsewhere() -> None:
    error = refusal({"sites": [{"name": "a", "patience": 1, "case": 1}]})

    def elsewhere(location: tuple[str | int, ...]) -> str:
        return "is a setting of fedmepd: leave it out" if location[-1] == "patience" else ""

    assert explain(error, "settings", Plan, elsewhere) == (
        "settings: sites.0.patience is a setting of fedmepd: leave it out; "
        "unknown key sites.0.case: expected one of name, cases; did you mean cases?"
    )


def test_a_stranger_cannot_fill_the_log() -> None:
    text = explain(refusal({"sites": [{"name": n} for n in range(1000)]}), "message", Plan)
    assert text.endswith("; 995 more") and len(text) < 1000


class Many(BaseModel):
    a: int
    b: int
    c: int
    d: int
    e: int
    f: int
    g: int
    inner: dict[str, int] = {}


class Holder(BaseModel):
    many: list[Many] = []
    name: str = ""
    last: str
    end: str


def test_what_is_missing_in_one_place_is_one_sentence_and_the_place_is_said_once() -> None:
    with pytest.raises(ValidationError) as caught:
        Holder.model_validate({"many": [{}, {"a": 1, "b": 2, "c": 3, "d": 4, "e": 5}, {"a": []}], "name": 1})
    assert explain(caught.value, "holder.json") == (
        "holder.json: many.0: a, b, c, d, e and 2 more are missing; many.1: f, g are missing; "
        "many.2.a: expected a whole number; many.2: b, c, d, e, f and 1 more are missing; name = 1: expected a text; "
        "2 more"
    )


def test_missing_keys_of_several_places_stay_apart() -> None:
    with pytest.raises(ValidationError) as caught:
        Many.model_validate(dict.fromkeys("defg", 1))
    text = explain(caught.value, lambda key: "b.json" if key == "b" else "many.json")
    assert text == "many.json: a, c are missing; b.json: b is missing"


def test_the_place_of_each_key() -> None:
    text = explain(refusal({"site": 1}), lambda key: {"site": "FEDMEPD_SITE"}.get(key, "fedmepd.json"))
    assert text == "fedmepd.json: sites is missing; FEDMEPD_SITE: unknown key site"


def test_broken_json_is_not_repeated() -> None:
    with pytest.raises(ValidationError) as caught:
        Plan.model_validate_json("{" + "secret" * 100)
    text = explain(caught.value, "plan.json", Plan)
    assert text.startswith("plan.json: invalid JSON") and "secret" not in text


FORGED = "x\n2026-01-01 00:00:00,000 - INFO - nothing has left\x1b[2J\x9b\u202e\u2028\udc80"
SHOWN = r"x\n2026-01-01 00:00:00,000 - INFO - nothing has left\x1b[2J\x9b\u202e\u2028\udc80"


@pytest.mark.parametrize("kind", [FedMEPDError, DataError, SettingsError, CheckpointError, FusionAway, UpdateRefused])
def test_no_message_forges_a_line_or_steers_a_terminal(kind: type[FedMEPDError]) -> None:
    error = kind(f"key {FORGED}", f"public {FORGED}")
    assert (str(error), error.public) == (f"key {SHOWN}", f"public {SHOWN}")


def test_a_message_of_several_lines_says_so() -> None:
    error = DataError("2 faults in the data:", "2 faults", lines=[f"case {FORGED}", "case b"])
    assert str(error) == f"2 faults in the data:\n  case {SHOWN}\n  case b"
    more = DataError(error.message, error.public, lines=(*error.lines, "or leave them out"))
    assert str(more) == f"2 faults in the data:\n  case {SHOWN}\n  case b\n  or leave them out"


def test_an_error_is_the_same_after_its_way_from_another_process() -> None:
    error = pickle.loads(pickle.dumps(DataError("2 faults:", "public", lines=["a", "b"])))
    assert (str(error), error.public) == ("2 faults:\n  a\n  b", "public")


def nested(kind: type, depth: int) -> object:
    """A value of a few hundred bytes in memory and 10 to the power of ``depth`` texts when it is written out."""
    value: object = "x"
    for _ in range(depth):
        value = kind([value] * 10)
    return value


@pytest.mark.parametrize("kind", [list, tuple])
def test_what_is_refused_is_told_without_writing_it_out(kind: type) -> None:
    began, value = time.process_time(), nested(kind, 12)
    assert plain_text(value) == f"a value of type {kind.__name__}"
    with pytest.raises(ValidationError) as caught:
        Plan.model_validate({"sites": [{"name": value}], "best": value})
    assert explain(caught.value, "plan.yaml", Plan) == (
        "plan.yaml: sites.0.name: expected a text; best: expected an object of keys and values"
    )
    assert time.process_time() - began < 1


@pytest.mark.parametrize("value", [10**5000, -(10**5000)], ids=["positive", "negative"])
def test_a_number_too_long_to_be_written_is_told_by_its_type(value: int) -> None:
    assert plain_text(value) == "a value of type int"
    with pytest.raises(ValidationError) as caught:
        Machine.model_validate({"threads": value})
    assert "threads: expected" in explain(caught.value, "machine.json")


@pytest.mark.parametrize(
    ("value", "expected"), [(7, "7"), (None, "None"), (0.5, "0.5"), (True, "True"), (Path("a/b"), "a/b"), ("t", "t")]
)
def test_plain_values_are_told_as_they_are(value: object, expected: str) -> None:
    assert plain_text(value) == expected


@pytest.mark.parametrize("name", ["case 1", "M\u00fcller", "\u60a3\u8005 1", "a\u00a0b", "a\u200db"])
def test_names_in_any_script(name: str) -> None:
    assert not has_controls(name)


@pytest.mark.parametrize("character", ["\0", "\n", "\r", "\t", "\x1b", "\x7f", "\x9b", "\u2028", "\u202e", "\u2066"])
def test_control_characters_of_a_name(character: str) -> None:
    assert has_controls(f"a{character}b")
