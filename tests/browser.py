"""Evaluates JavaScript in a page that headless Chromium shows. It needs the program Chromium, and no package."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
SECONDS = 90
# Inserted first in the page: records every failed load and every exception.
WATCH = """<script>window.problems = []; addEventListener("error", (event) => {
  problems.push(event.message || event.target.tagName + " not loaded"); }, true);</script>"""
# A frame gives the page any width: Chromium's own window has at least 500 pixels.
FRAME = """<!doctype html><style>body {{ margin: 0 }}</style>
<iframe src="{address}" style="border: 0; width: {width}px; height: 900px"></iframe><pre></pre>
<script>addEventListener("message", (event) => {{
  document.querySelector("pre").textContent = event.data; }});</script>"""


def evaluate(page: Path, expression: str, folder: Path, *, width: int = 1280, dark: bool = False):
    """Return (value of the JavaScript expression in the loaded page, console messages).

    folder: for copies of the page. The expression can read ``problems``, the list of errors.
    """
    answer = f"<script>addEventListener('load', () => parent.postMessage(JSON.stringify({expression}), '*'));</script>"
    text = page.read_text(encoding="utf-8")
    watched = folder / "watched.html"
    watched.write_text(text.replace("<head>", f"<head>{WATCH}", 1).replace("</body>", f"{answer}</body>", 1), "utf-8")
    frame = folder / "frame.html"
    frame.write_text(FRAME.format(address=watched.name, width=width), "utf-8")
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"]
    command += [f"--window-size={width},990", "--virtual-time-budget=10000", "--enable-logging=stderr"]
    command += ["--host-resolver-rules=MAP * ~NOTFOUND", *(["--blink-settings=preferredColorScheme=0"] if dark else [])]
    done = subprocess.run(
        [*command, "--dump-dom", frame.as_uri()], check=True, timeout=SECONDS, capture_output=True, text=True
    )
    found = re.search("<pre>(.*?)</pre>", done.stdout, re.DOTALL)
    console = [line for line in done.stderr.splitlines() if ":CONSOLE:" in line]
    assert found and found[1], f"the page did not answer: {done.stderr[-2000:]}"
    return json.loads(html.unescape(found[1])), console
