"""One browser for all tests of pages."""

from __future__ import annotations

from collections.abc import Iterator

import browser as support
import pytest


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[support.Browser]:
    """A browser without a window."""
    reason = support.why_not()
    if reason is not None:
        pytest.skip(reason)
    driver = support.started(tmp_path_factory.mktemp("profile"))
    try:
        yield support.Browser(driver)
    finally:
        driver.quit()
