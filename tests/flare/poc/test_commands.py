import pytest

from fedmepd.flare.poc.commands import FlareError, answer_of


@pytest.mark.parametrize(
    ("output", "errors", "expected"),
    [
        ('{"status": "error", "error_code": "X", "message": "no", "hint": "do"}', "", "nvflare poc start: no. do"),
        ("warning: {}\n", "Traceback\nImportError: no nvflare\n", "nvflare poc start failed: ImportError: no nvflare"),
        ("", "", "nvflare poc start failed: it printed nothing"),
    ],
)
def test_answers_that_are_errors(output, errors, expected):
    with pytest.raises(FlareError) as error:
        answer_of(("poc", "start"), output, errors)
    assert str(error.value) == expected


def test_an_answer_below_other_lines():
    assert answer_of(("job", "meta"), 'note\n{"status": "ok", "data": {"a": 1}}\n', "warning") == {"a": 1}
