"""Who has a right by FLARE's ``authorization.json``: FLARE decides about people whom the file's words tell apart."""

from __future__ import annotations

from collections.abc import Iterator

from nvflare.fuel.sec.authz import AuthzContext, Person, Policy

EVERYBODY = "any"
# FLARE keeps a word for all rights under this name, and looks for it first.
ALL_RIGHTS = "*"

_NOT = "not "
_NOBODYS_WORDS, _EVERYBODYS_WORDS = ("none", "no"), ("any", "all")
# Names that no organisation and no user has.
_THIS_SITE, _OTHER = "(this site)", "(another)"


def in_flares_spelling(text: str) -> str:
    """Returns the name of a right, or a condition, as FLARE compares it."""
    return " ".join(text.lower().split())


def for_everybody(conditions: str | list[str]) -> bool:
    """Whether one of a right's conditions names everybody of the role."""
    words = [conditions] if isinstance(conditions, str) else conditions
    return any(in_flares_spelling(word) in _EVERYBODYS_WORDS for word in words)


def whose(policy: Policy, role: str, right: str) -> str:
    """Returns who of a role has a right, in words; empty: nobody.

    >>> from nvflare.fuel.sec.authz import parse_policy_config
    >>> rights = {"byoc": "not any", "view": ["o:a", "o:b", "not n:x"]}
    >>> policy, _ = parse_policy_config({"format_version": "1.0", "permissions": {"lead": rights}}, {})
    >>> whose(policy, "lead", "byoc"), whose(policy, "lead", "view")
    ('', 'o:a or o:b but not n:x')

    Args:
        policy: what FLARE has read.
        role: of it.
        right: as FLARE spells it.

    Returns:
        :data:`EVERYBODY`, or the conditions in FLARE's words, such as ``o:site`` for the site's own organisation.
    """
    given = policy.role_rights[role]
    conditions = given.get(ALL_RIGHTS, given.get(right, []))
    words = [in_flares_spelling(one) for one in ([conditions] if isinstance(conditions, str) else conditions)]
    may = {policy.evaluate(_THIS_SITE, AuthzContext(right, *people))[0] for people in _people(role, words)}
    if may == {False}:
        return ""
    if may == {True}:
        return EVERYBODY
    empty = (*_NOBODYS_WORDS, *_EVERYBODYS_WORDS)
    allowed = [word for word in words if not word.startswith(_NOT) and word not in _NOBODYS_WORDS]
    refused = [word.removeprefix(_NOT) for word in words if word.startswith(_NOT) and word[len(_NOT) :] not in empty]
    said = EVERYBODY if set(allowed) & set(_EVERYBODYS_WORDS) else " or ".join(allowed) or EVERYBODY
    return f"{said} but not {' or '.join(refused)}" if refused else said


def _people(role: str, words: list[str]) -> Iterator[tuple[Person, Person]]:
    """Users and submitters of jobs: of each organisation and name in the words, and others."""
    targets = [word.removeprefix(_NOT).partition(":") for word in words]
    users = [Person(_OTHER, _OTHER, role), Person(_OTHER, _THIS_SITE, role)]
    users += [
        Person(_OTHER, target.strip(), role) if kind.strip() in ("o", "org") else Person(target.strip(), _OTHER, role)
        for kind, _, target in targets
        if target
    ]
    for user in users:
        yield user, user
        yield user, Person("(somebody)", "(somewhere)", role)
