"""Each damaged input ends as it must (``damaged.py``)."""

from __future__ import annotations

import os

import pytest

from tests.faults.cases import Case, Judge
from tests.faults.damaged import CASES


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Judge:
    return Judge(tmp_path_factory.mktemp("damaged"))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_damaged(judge: Judge, case: Case) -> None:
    if case.kind.needs_root and os.geteuid() != 0:
        pytest.skip("only root can be another user")
    verdict = judge(case)
    assert not verdict.complaints, verdict.ended.text
