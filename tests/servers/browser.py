# SPDX-License-Identifier: Apache-2.0
"""Debian's Chromium, driven by Playwright. That comes with what bundles the page (build/web-tools): in the main
environment each change of it would mean to build everything anew."""

import contextlib
import shutil
import site
from collections.abc import Iterator
from pathlib import Path

TOOLS = Path(__file__).resolve().parents[2] / "build/web-tools"  # of `make setup`
site.addsitedir(str(next(TOOLS.glob("lib/python3*/site-packages"), TOOLS)))

from playwright.sync_api import Browser, Page, sync_playwright  # noqa: E402

AXE = TOOLS / "node_modules/axe-core/axe.min.js"
# What a user of the page would see as broken, by WCAG 2.2 and axe's own practices.
AXE_RUN = "async () => (await axe.run(document, {resultTypes: ['violations']})).violations"


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    program = shutil.which("chromium")
    assert program, "apt-get install chromium"
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=program, args=arguments)
        try:
            yield browser
        finally:
            browser.close()


def violations(page: Page) -> list[str]:
    """What axe-core has against the page as it is now."""
    page.evaluate(AXE.read_text())
    return [
        f"{found['id']}: {found['help']}: {node['target']} {node.get('failureSummary', '')}"
        for found in page.evaluate(AXE_RUN)
        for node in found["nodes"]
    ]
