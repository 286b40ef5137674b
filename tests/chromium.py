"""A real browser for the tests of the report, where one is installed."""

from __future__ import annotations

import html
import json
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--hide-scrollbars",
    "--host-resolver-rules=MAP * ~NOTFOUND",
)  # fmt: skip


def find_browser() -> str:
    """The browser's command; skips the test where there is none."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} is installed")
    return program


def measure(page: Path, expression: str, *, width: int = 375) -> Any:
    """Return the value of a JavaScript expression for a page that is shown in this width.

    In `expression`, `page` is the document and `view` its window. The page itself may run no script, so it is looked at
    from another one that frames it.
    """
    browser = find_browser()
    with tempfile.TemporaryDirectory() as scratch:
        outside = Path(scratch) / "outside.html"
        outside.write_text(
            f"""<!DOCTYPE html><title>waiting</title><body style="margin:0">
            <iframe id="framed" src="{page.as_uri()}" style="width:{width}px;height:1200px;border:0"></iframe>
            <pre id="answer"></pre><script>
            framed.addEventListener("load", () => {{
              const page = framed.contentDocument, view = framed.contentWindow;
              answer.textContent = JSON.stringify({expression});
            }});</script>""",
            encoding="utf-8",
        )
        done = subprocess.run(
            [
                browser, *QUIET, f"--user-data-dir={scratch}/profile", "--allow-file-access-from-files",
                "--virtual-time-budget=5000", "--window-size=1400,1300", "--dump-dom", outside.as_uri(),
            ],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    written = done.stdout.partition('<pre id="answer">')[2].partition("</pre>")[0]
    assert written, done.stderr
    return json.loads(html.unescape(written))
