from __future__ import annotations

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
        (7, "plan.yaml: content = 7: input should be a valid dictionary or instance of Plan"),
        ({"sites": "x" * 500}, f"plan.yaml: sites = '{'x' * 79}...: input should be a valid list"),
        ({"sites": [], "site": 1}, "plan.yaml: unknown key site: expected one of sites, by_name, best"),
        ({"sites": [{"name": "a", "case": 1}]}, "plan.yaml: unknown key sites.0.case: expected one of name, cases"),
        (
            {"sites": [], "by_name": {"b": {"name": "a", "case": 1}}},
            "plan.yaml: unknown key by_name.b.case: expected one of name, cases",
        ),
        ({"sites": [{"name": "A"}]}, "plan.yaml: sites.0.name = 'A': Names are written in small letters"),
        ({"sites": {"a": 1}}, "plan.yaml: sites: input should be a valid list"),
        (
            {"sites": [{"name": "a", "cases": 0}, {"name": 1}]},
            "plan.yaml: sites.0.cases = 0: input should be greater than or equal to 1; "
            "plan.yaml: sites.1.name = 1: input should be a valid string",
        ),
    ],
)
def test_names_place_key_value_and_what_was_expected(content: object, expected: str) -> None:
    assert explain(refusal(content), "plan.yaml", Plan) == expected


def test_an_unknown_key_without_the_model() -> None:
    assert explain(refusal({"sites": [], "site": 1}), "plan.yaml") == "plan.yaml: unknown key site"


def test_a_key_that_is_known_elsewhere() -> None:
    error = refusal({"sites": [{"name": "a", "patience": 1, "case": 1}]})

    def elsewhere(location: tuple[str | int, ...]) -> str:
        return "is a setting of fedmepd: leave it out" if location[-1] == "patience" else ""

    assert explain(error, "settings", Plan, elsewhere) == (
        "settings: sites.0.patience is a setting of fedmepd: leave it out; "
        "settings: unknown key sites.0.case: expected one of name, cases"
    )


def test_a_stranger_cannot_fill_the_log() -> None:
    text = explain(refusal({"sites": [{"name": n} for n in range(1000)]}), "message", Plan)
    assert text.endswith("; 995 more") and len(text) < 1000


def test_the_place_of_each_key() -> None:
    text = explain(refusal({"site": 1}), lambda key: {"site": "FEDMEPD_SITE"}.get(key, "fedmepd.json"))
    assert text == "fedmepd.json: sites is missing; FEDMEPD_SITE: unknown key site"


def test_broken_json_is_not_repeated() -> None:
    with pytest.raises(ValidationError) as caught:
        Plan.model_validate_json("{" + "secret" * 100)
    text = explain(caught.value, "plan.json", Plan)
    assert text.startswith("plan.json: invalid JSON") and "secret" not in text
