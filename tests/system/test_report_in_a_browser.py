"""The report as a browser shows it, on a desk, a phone and paper: https://chromedevtools.github.io/devtools-protocol/."""

import asyncio
import base64
import io
import os
import shutil
import subprocess
import time

import aiohttp
import matplotlib.image
import pytest
from book import PROVENANCE, full, inputs_of

from analysis.report.page import build_report

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking",
    "--disable-sync", "--no-first-run", "--hide-scrollbars", "--remote-debugging-port=0",
)  # fmt: skip
DESK, PHONE = (1400, 1000), (390, 844)
LOOK = """({
  wide: document.documentElement.scrollWidth, room: innerWidth,
  verdicts: [...document.querySelectorAll('.verdict')].map(e => [e.textContent, e.getBoundingClientRect().bottom]),
  answer: [document.querySelector('.answer').textContent, document.querySelector('.answer').getBoundingClientRect().bottom],
  small: [...document.querySelectorAll('p, td, dd, li')].filter(e => parseFloat(getComputedStyle(e).fontSize) < 12).length,
})"""
COLUMN = """[...document.querySelectorAll('#table-accuracy tbody tr')].map(r => r.cells[%d].textContent)"""


class Page:
    """One page of a browser, and all that it complained about or asked for."""

    def __init__(self, socket):
        self.socket, self.count, self.complaints, self.asked, self.loaded = socket, 0, [], [], 0

    async def send(self, method, **params):
        self.count += 1
        number = self.count
        await self.socket.send_json({"id": number, "method": method, "params": params})
        while True:
            message = await self.receive()
            if message.get("id") == number:
                assert "error" not in message, message
                return message["result"]

    async def receive(self):
        message = await self.socket.receive_json(timeout=60)
        method = message.get("method", "")
        if method in ("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled"):
            self.complaints.append(message["params"])
        if method == "Network.requestWillBeSent":
            self.asked.append(message["params"]["request"]["url"])
        self.loaded += method == "Page.loadEventFired"
        return message

    async def open(self, path, size):
        width, height = size
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        await self.send("Emulation.setDeviceMetricsOverride", **metrics)
        before = self.loaded
        await self.send("Page.navigate", url=path.as_uri())
        while self.loaded == before:
            await self.receive()

    async def ask(self, expression):
        found = await self.send("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    async def press(self, key, code):
        for kind in ("keyDown", "keyUp"):
            text = {"text": "\r"} if key == "Enter" and kind == "keyDown" else {}
            await self.send("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **text)

    async def picture(self):
        shot = await self.send("Page.captureScreenshot", format="png")
        return matplotlib.image.imread(io.BytesIO(base64.b64decode(shot["data"])))


def port_of(folder, process):
    """The port that the browser chose; it writes it into its folder."""
    for _ in range(600):
        try:
            return (folder / "DevToolsActivePort").read_text().split()[0]
        except (FileNotFoundError, IndexError):
            assert process.poll() is None, "the browser ended"
            time.sleep(0.1)
    raise AssertionError("the browser opened no port")


async def tour(path, port):
    """Everything that the tests look at, in one visit."""
    found = {}
    async with aiohttp.ClientSession() as session:
        async with session.get(f"http://127.0.0.1:{port}/json/list") as listed:
            address = next(p for p in await listed.json() if p["type"] == "page")["webSocketDebuggerUrl"]
        async with session.ws_connect(address, max_msg_size=0) as socket:
            page = Page(socket)
            for domain in ("Page", "Runtime", "Log", "Network"):
                await page.send(f"{domain}.enable")
            for name, size in (("phone", PHONE), ("desk", DESK)):
                await page.open(path, size)
                found[name] = await page.ask(LOOK), await page.picture()
            found["as written"] = await page.ask(COLUMN % 2)
            for name in ("up", "down"):
                await page.ask(
                    "document.querySelectorAll('#table-accuracy th')[2].querySelector('[role=button]').focus()"
                )
                await page.press("Enter", 13)
                sort = await page.ask("document.querySelectorAll('#table-accuracy th')[2].ariaSort")
                found[name] = sort, await page.ask(COLUMN % 2)
            await page.ask("document.querySelector('#figure-effects button').click()")
            found["enlarged"] = await page.ask("document.querySelector('dialog').open")
            await page.press("Escape", 27)
            found["closed"] = await page.ask("document.querySelector('dialog').open")
            found["folded"] = await page.ask("document.getElementById('files').open")
            await page.ask("location.hash = 'files'; dispatchEvent(new Event('hashchange'))")
            found["unfolded"] = await page.ask("document.getElementById('files').open")
            await page.ask("document.getElementById('files').open = false")
            found["paper"] = base64.b64decode((await page.send("Page.printToPDF", printBackground=True))["data"])
            found["folded again"] = not await page.ask("document.getElementById('files').open")
            found["complaints"], found["asked"] = page.complaints, page.asked
    return found


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """One visit for all tests."""
    folder = tmp_path_factory.mktemp("browser")
    path = build_report(inputs_of(full()), folder / "report", PROVENANCE)
    home = {**os.environ, "HOME": str(folder)}
    command = [BROWSER, *FLAGS, f"--user-data-dir={folder / 'profile'}", "about:blank"]
    with subprocess.Popen(command, env=home, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield asyncio.run(tour(path, port_of(folder / "profile", process))) | {"path": path}
        finally:
            process.terminate()


def test_nothing_is_loaded_and_nothing_complains(seen):
    assert seen["complaints"] == []
    assert {url for url in seen["asked"] if not url.startswith("data:")} == {seen["path"].as_uri()}
    assert seen["path"].stat().st_size < 5e6


@pytest.mark.parametrize("name", ["phone", "desk"])
def test_the_first_screen_says_how_the_claims_ended(seen, name):
    look, picture = seen[name]
    width, height = PHONE if name == "phone" else DESK
    assert picture.shape[:2] == (height, width)
    assert picture[..., :3].std() > 0.05  # something is drawn
    assert look["wide"] <= look["room"] == width  # tables and figures scroll in their own boxes
    assert look["small"] == 0
    answer, bottom = look["answer"]
    assert "2 claims" in answer and "A/A control inside" in answer and bottom < height
    assert len(look["verdicts"]) == 2
    assert all(bottom < height for _, bottom in (look["verdicts"] if name == "desk" else look["verdicts"][:1]))


def test_a_table_is_sorted_by_the_keyboard(seen):
    cells = seen["as written"]
    shares = [float(text.split()[0]) for text in cells]
    (up, ascending), (down, descending) = seen["up"], seen["down"]
    assert (up, down) == ("ascending", "descending")
    assert [float(text.split()[0]) for text in ascending] == sorted(shares) != shares
    assert [float(text.split()[0]) for text in descending] == sorted(shares, reverse=True)


def test_a_figure_opens_large_and_a_link_unfolds(seen):
    assert (seen["enlarged"], seen["closed"]) == (True, False)
    assert (seen["folded"], seen["unfolded"]) == (False, True)


def test_it_prints(seen):
    assert seen["paper"].startswith(b"%PDF") and len(seen["paper"]) > 30_000
    assert seen["folded again"]
