"""A bucket's listing is read with its own parser of times."""

from __future__ import annotations

from datetime import UTC, datetime

import botocore.utils
import pytest

from loaderbench.bucket import client

MOMENT = datetime(2026, 11, 29, 10, 4, 16, tzinfo=UTC)


@pytest.mark.parametrize("text", ["2026-11-29T10:04:16Z", "2026-11-29T10:04:16.000Z", "Sun, 29 Nov 2026 10:04:16 GMT"])
def test_listing_and_headers_give_the_same_time(text: str) -> None:
    assert client._time(text) == MOMENT


def test_listing_does_not_use_the_slow_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(botocore.utils, "parse_timestamp", pytest.fail)
    assert client._time("2026-11-29T10:04:16.000Z") == MOMENT
