"""A headless browser without a driver: pages measure themselves."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

_MEASURE = """<script>addEventListener("load", () => {
  const root = document.documentElement;
  const wide = [...document.querySelectorAll("body *")].filter(
    e => e.getBoundingClientRect().right > innerWidth + 0.5).map(e => e.outerHTML.slice(0, 80));
  const heights = Object.fromEntries([...document.querySelectorAll("[data-score-of],[data-cost-of]")
    .entries()].map(([i, e]) => [JSON.stringify(e.dataset), e.getBoundingClientRect().height]));
  const images = [...document.images].map(e => e.naturalWidth);
  parent.postMessage(JSON.stringify(
    {scroll_width: root.scrollWidth, inner_width: innerWidth, wide, heights, images}), "*");
});</script></body>"""

# Browsers do not make windows as narrow as a phone; a frame is as wide as it is told.
_FRAME = """<!doctype html><body style="margin:0">
<iframe srcdoc="{page}" style="width:{width}px;height:800px;border:0"></iframe>
<script>addEventListener("message", e => {{
  document.body.innerHTML = "<pre id=measured></pre>";
  document.getElementById("measured").textContent = e.data;
}});</script></body>"""


def find_browser() -> str | None:
    """Chromium on the path, or where Debian puts it."""
    return shutil.which("chromium") or shutil.which("/usr/bin/chromium")


def run_browser(*args: str, tmp_path: Path) -> str:
    """Standard output of one call."""
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    flags += ["--no-first-run", f"--user-data-dir={tmp_path / 'profile'}"]
    done = subprocess.run(
        [find_browser(), *flags, *args], capture_output=True, text=True, timeout=120, check=True
    )
    return done.stdout


def measure(page: str, width: int, tmp_path: Path) -> dict:
    """How a page lies in a window of a width in pixels."""
    probed = page.replace("</body>", _MEASURE)
    frame = tmp_path / f"frame-{width}.html"
    frame.write_text(_FRAME.format(page=html.escape(probed), width=width))
    dom = run_browser(
        "--dump-dom", "--virtual-time-budget=10000", frame.as_uri(), tmp_path=tmp_path
    )
    found = re.search(r'<pre id="measured">(.*?)</pre>', dom, re.DOTALL)
    assert found is not None, dom[-500:]
    return json.loads(html.unescape(found[1]))
