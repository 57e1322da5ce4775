"""What the end of a part says."""

from __future__ import annotations

import pytest

from autostart_proxy.backends import Exit
from autostart_proxy.lifecycle.exits import ASKED_TO_END, crashed


def test_who_did_not_end_did_not_crash() -> None:
    assert not crashed(None)


@pytest.mark.parametrize("code", sorted(ASKED_TO_END))
def test_a_program_that_was_told_to_end_says_so_by_its_code(code: int) -> None:
    assert not crashed(Exit("web", code))
    assert crashed(Exit("web", code, out_of_memory=True)), "the kernel is nobody who asks"


@pytest.mark.parametrize("code", [1, 3, 134, 139])
def test_any_other_code_is_a_crash(code: int) -> None:
    assert crashed(Exit("web", code))
