"""Every --help page fits 100 columns, and says what each option is."""

import re
from contextlib import redirect_stdout, suppress
from io import StringIO

import pytest

from captum_meta.benchmark.cli import _FURTHER
from captum_meta.cli import main

OURS = [
    ["--help"],
    *([name, "--help"] for name in ("demo", "explain", "benchmark")),
    *(["benchmark", n, "--help"] for n in _FURTHER),
]


def told(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("COLUMNS", "100")
    with redirect_stdout(StringIO()) as out, suppress(SystemExit):
        main(arguments)
    return out.getvalue()


@pytest.mark.parametrize("arguments", OURS, ids=" ".join)
def test_fits_and_explains(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    page = told(arguments, monkeypatch)
    assert page and max(map(len, page.splitlines())) <= 100
    for option in re.split(r"\n  (?=-)", page)[1:]:
        name, *words = option.split("\n\n")[0].split("  ", 1)
        assert words and len(words[0].split()) >= 2, f"{name} is not explained"


def test_the_page_of_fit_begins_within_its_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = told(["fit", "--help"], monkeypatch).split("options:")[0]
    assert "shapley-zero-shot" in ours
    assert max(map(len, ours.splitlines())) <= 100
