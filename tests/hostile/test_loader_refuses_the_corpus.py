"""Every file of the corpus ends in its own error; nothing in it runs, nothing is written, memory stays within bounds."""

from __future__ import annotations

from typing import Any

import pytest
from cases import CASES, Case

Outcomes = dict[str, dict[str, Any]]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_refused_with_its_own_error(case: Case, outcomes: Outcomes) -> None:
    outcome = outcomes[case.name]
    assert (outcome["error_class"], case.message in (outcome["message"] or "")) == (case.error, True), outcome[
        "message"
    ]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_nothing_ran_and_nothing_was_left(case: Case, outcomes: Outcomes) -> None:
    outcome = outcomes[case.name]
    assert not outcome["canary"]
    assert outcome["events"] == []
    assert outcome["appeared"] == []
    assert outcome["cfg_untouched"]
    assert not outcome["torch"]


def test_no_file_takes_long(outcomes: Outcomes) -> None:
    slowest = max(outcomes, key=lambda name: outcomes[name]["seconds"])
    assert outcomes[slowest]["seconds"] < 5.0, slowest


def test_messages_stay_on_one_short_printable_line(outcomes: Outcomes) -> None:
    for name, outcome in outcomes.items():
        assert outcome["message"].isprintable(), name
        assert len(outcome["message"]) < 600, name


def test_corpus_has_no_name_twice_and_more_than_forty_files() -> None:
    assert len({case.name for case in CASES}) == len(CASES) > 40
