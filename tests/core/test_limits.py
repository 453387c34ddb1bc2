"""How much of a file is read, what is said of more, and how the limits are lifted."""

from __future__ import annotations

import pytest

from wgtorch.core.errors import CheckpointError, ConfigError
from wgtorch.core.limits import check_limit


def refused(count: int, most: int, where: str = "it.json", instead: str = "") -> str:
    with pytest.raises(ConfigError) as caught:
        check_limit(count, most, "holds {} values", where, ConfigError, instead)
    return str(caught.value)


def test_as_much_as_is_allowed_is_read_and_one_more_is_not() -> None:
    check_limit(7, 7, "holds {} values", "it.json", ConfigError)
    assert refused(8, 7) == "it.json: holds 8 values; expected at most 7. Set WGTORCH_FILE_LIMITS=10 to read ten times as much"
    said = refused(8, 7, instead="Write fewer")
    assert said.endswith("expected at most 7. Write fewer, or set WGTORCH_FILE_LIMITS=10 to read ten times as much")


@pytest.mark.parametrize(("times", "allowed"), [("1", 7), ("1.5", 10), ("10", 70)])
def test_a_variable_lifts_the_limits(times: str, allowed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WGTORCH_FILE_LIMITS", times)
    check_limit(allowed, 7, "holds {} values", "it.json", ConfigError)
    assert f"expected at most {allowed}." in refused(allowed + 1, 7)


@pytest.mark.parametrize("times", ["many", "0", "-1", "nan", ""])
def test_a_variable_that_is_no_number_above_zero_is_told(times: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WGTORCH_FILE_LIMITS", times)
    with pytest.raises(CheckpointError, match=f"WGTORCH_FILE_LIMITS='{times}': expected a number such as 10"):
        check_limit(8, 7, "holds {} values", "it.json", CheckpointError)


def test_a_long_place_is_cut_in_its_middle() -> None:
    for length in (299, 300):
        where = "a" * 200 + "b" * (length - 260) + "c" * 60
        shown = where if length < 300 else "a" * 200 + "..." + "c" * 60
        assert refused(8, 7, where).startswith(f"{shown}: holds")
