from __future__ import annotations

from typing import Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from fedmepd.errors import explain


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
