"""A real browser: Debian's Chromium without a window, driven through its own driver."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

_PACKAGES = ("chromium", "chromium-driver")
_PROGRAMS = ("chromium", "chromedriver")


def why_not() -> str | None:
    """Why there can be no browser here, or None; as root the missing packages are installed from Debian."""
    if _missing() and os.geteuid() == 0 and shutil.which("apt-get"):
        install = ["apt-get", "install", "--yes", "--quiet", "--no-install-recommends", *_PACKAGES]
        quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in (install, ["apt-get", "update", "--quiet"], install):
            if _missing():
                subprocess.run(command, capture_output=True, env=quiet, timeout=400)
    if _missing():
        return f"no {', '.join(_missing())} (Debian packages {', '.join(_PACKAGES)})"
    return None


def _missing() -> list[str]:
    return [program for program in _PROGRAMS if shutil.which(program) is None]


def started(profile: Path) -> Any:
    """The browser's driver. It keeps what pages log and every address that they ask for."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    # The last three: the browser itself asks for no address either.
    quiet = ("--disable-background-networking", "--no-first-run", "--disable-component-update")
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}", *quiet):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return webdriver.Chrome(
        options=options, service=webdriver.ChromeService(executable_path=shutil.which("chromedriver"))
    )


class Browser:
    """The browser, and what a test asks of a page."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, page: Path, width: int = 1400, height: int = 1000) -> None:
        """Show a file; the logs of the page before are dropped."""
        self.driver.get("about:blank")
        self.console(), self.addresses()
        self.driver.set_window_size(width, height)
        self.driver.get(page.as_uri())

    def do(self, script: str, *arguments: object) -> Any:
        """Run a script in the page; what it returns."""
        return self.driver.execute_script(script, *arguments)

    def find(self, selector: str) -> Any:
        """The first element of a selector."""
        return self.driver.find_element("css selector", selector)

    def all(self, selector: str) -> list[Any]:
        """Every element of a selector."""
        return self.driver.find_elements("css selector", selector)

    def texts(self, selector: str) -> list[str]:
        """The text of every element of a selector, whether or not it is on the screen."""
        return self.do(
            "return [...document.querySelectorAll(arguments[0])].map((e) => e.textContent)", selector
        )

    def choose(self, selector: str, value: str) -> None:
        """Choose an option of a menu."""
        from selenium.webdriver.support.ui import Select

        Select(self.find(selector)).select_by_value(value)

    def press(self, *keys: str) -> None:
        """Type on what has the focus."""
        from selenium.webdriver.common.action_chains import ActionChains

        ActionChains(self.driver).send_keys(*keys).perform()

    def console(self) -> list[str]:
        """Errors and warnings since the last call."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def addresses(self) -> set[str]:
        """Every address that was asked for since the last call, data: addresses apart."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        asked = (e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent")
        return {address for address in asked if not address.startswith(("data:", "about:"))}

    def screenshot(self, file: Path, width: int, height: int | None = None) -> None:
        """A picture of the page: as high as its content, where no height is given."""
        self.driver.set_window_size(width, height or 1000)
        if height is None:
            self.driver.set_window_size(width, self.do("return document.documentElement.scrollHeight") + 150)
        self.driver.save_screenshot(str(file))
