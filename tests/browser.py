"""A real browser without a window, for pages that are tested as a person would open them."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

from tests.debian import need_programs

PROGRAMS = {"chromium": "chromium", "chromedriver": "chromium-driver"}  # and their packages
FLAGS = (
    "--headless",
    "--no-sandbox",  # which root needs
    "--disable-gpu",
    "--disable-dev-shm-usage",  # a container's is small
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # Nothing beyond this machine has an address for it, whatever a page or the browser wants.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--window-size=1280,900",
)


@contextlib.contextmanager
def started(folder: Path) -> Iterator[Chrome]:
    """A browser with a new profile in the empty `folder`, which logs its requests."""
    need_programs(PROGRAMS)
    options = ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for flag in (*FLAGS, f"--user-data-dir={folder}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    # With its path given, selenium looks for no driver in the network.
    browser = Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        yield browser
    finally:
        browser.quit()


def go_offline(browser: Chrome) -> None:
    """Take the network away from the pages."""
    browser.set_network_conditions(offline=True, latency=0, throughput=0)


def requests(browser: Chrome) -> list[str]:
    """The addresses that the browser asked for since the last call, granted or not.

    It also logs what a data: address holds, for which it asks nobody.
    """
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    ]
    return [address for address in asked if not address.startswith("data:")]
