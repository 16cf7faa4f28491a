"""A page in a real browser: headless Chromium, which is asked what it sees. Nothing but the program is needed."""

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
# Runs before all else in the page: whatever fails to load or throws is kept.
WATCH = """<script>window.troubles = []; addEventListener("error", (event) => {
  troubles.push(event.message || event.target.tagName + " not loaded"); }, true);</script>"""
# A page of any width: Chromium's own window is at least 500 pixels wide.
FRAME = """<!doctype html><style>body {{ margin: 0 }}</style>
<iframe src="{address}" style="border: 0; width: {width}px; height: {height}px"></iframe><pre></pre>
<script>addEventListener("message", (event) => {{
  document.querySelector("pre").textContent = event.data; }});</script>"""


def look(page: Path, probe: str, folder: Path, *, width: int = 1280, dark: bool = False, picture: Path | None = None):
    """(what the JavaScript expression ``probe`` comes to in the loaded page, the console's messages).

    folder: for copies of the page. picture: a file for a screenshot of the page's first screen.
    """
    answer = f"<script>addEventListener('load', () => parent.postMessage(JSON.stringify({probe}), '*'));</script>"
    text = page.read_text(encoding="utf-8")
    watched = folder / "watched.html"
    watched.write_text(text.replace("<head>", f"<head>{WATCH}", 1).replace("</body>", f"{answer}</body>", 1), "utf-8")
    height = 844 if width < 600 else 900
    frame = folder / "frame.html"
    frame.write_text(FRAME.format(address=watched.name, width=width, height=height), "utf-8")
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"]
    command += [f"--window-size={width},{height + 90}", "--virtual-time-budget=10000", "--enable-logging=stderr"]
    command += ["--host-resolver-rules=MAP * ~NOTFOUND", *(["--blink-settings=preferredColorScheme=0"] if dark else [])]
    if picture is not None:
        subprocess.run(
            [*command, f"--screenshot={picture}", frame.as_uri()], check=True, timeout=SECONDS, capture_output=True
        )
    done = subprocess.run(
        [*command, "--dump-dom", frame.as_uri()], check=True, timeout=SECONDS, capture_output=True, text=True
    )
    found = re.search("<pre>(.*?)</pre>", done.stdout, re.DOTALL)
    console = [line for line in done.stderr.splitlines() if ":CONSOLE:" in line]
    assert found and found[1], f"the page did not answer: {done.stderr[-2000:]}"
    return json.loads(html.unescape(found[1])), console
