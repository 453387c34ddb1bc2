"""The page in a real browser: Debian's Chromium, headless, on a small world.

python -m pytest -n 0 -m browser tests/play/test_browser.py       (needs: pip install 'wgtorch[browser]', apt install chromium)
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync",
]  # fmt: skip
SERVER = """
import sys
from pathlib import Path
from tests.play import worlds
from wgtorch.cli.play import token_in
from wgtorch.play import Game, make_play_app
from wgtorch.serving.server import serve_app
folder, port = Path(sys.argv[1]), int(sys.argv[2])
world = getattr(worlds, sys.argv[3])()
world.set_storage({"state_dir": str(folder / "states")})
if (folder / "states").exists():
    world.resume()
token = token_in(folder)
app = make_play_app(Game(world, seed=1, folder=folder / "branches"), token=token)
serve_app(app, port=port, patience=1, ready=lambda url: print(f"{url}/?token={token}", flush=True))
"""

pytestmark = [
    pytest.mark.browser,
    pytest.mark.xdist_group("processes"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium"),
]


class Served:
    """A server in a process of its own, which can be killed and started again under the same address."""

    def __init__(self, folder: Path, world: str = "small_world") -> None:
        self.folder, self.port, self.world = folder, 0, world
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-c", SERVER, str(self.folder), str(self.port), self.world]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2], env={**os.environ})
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()
        self.port = int(re.search(r":(\d+)/", self.url)[1])

    def kill(self, how: int = signal.SIGKILL) -> None:
        self.process.send_signal(how)
        self.process.wait(60)
        self.process.stdout.close()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    server = Served(tmp_path)
    yield server
    server.kill()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as play:
        found = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield found
        found.close()


@pytest.fixture
def page(browser: Any, served: Served) -> Iterator[Any]:
    context = browser.new_context()
    found = context.new_page()
    found.set_default_timeout(120_000)
    found.wrong = []
    found.on("pageerror", lambda error: found.wrong.append(str(error)))
    found.on("dialog", lambda dialog: found.wrong.append(f"a dialog: {dialog.message}"))
    found.goto(served.url)
    found.wait_for_selector("#suggestions button")
    yield found
    context.close()


def until(page: Any, holds: str) -> None:
    """Waits until something holds on the page; asked from outside, since the page's policy lets nothing be evaluated inside."""
    for _ in range(2400):
        if page.evaluate(holds):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"it never came to that: {holds}")


def act(page: Any, text: str) -> None:
    passes = page.locator("#timeline li").count()
    until(page, "!document.querySelector('#go').disabled")  # a pass that failed may still be ending
    page.fill("#action", text)
    page.keyboard.press("Enter")
    until(page, f"document.querySelectorAll('#timeline li').length > {passes} && !document.querySelector('#go').disabled")


def test_opening_acting_and_a_script_as_an_action(page: Any) -> None:
    assert "token" not in page.url
    assert page.locator("#map .place").count() == 2
    assert page.locator("#cast").inner_text().startswith("Ada (you)")
    act(page, "<img src=x onerror=alert(1)><script>alert(2)</script>")
    assert "<script>alert(2)</script>" in page.locator("#telling").inner_text()
    assert page.locator("#telling img, #telling script").count() == 0
    until(page, "document.querySelector('#pictures img').naturalWidth === 512")
    assert page.wrong == []


def test_keys_alone(page: Any) -> None:
    page.keyboard.press("/")
    page.keyboard.type("sing")
    page.keyboard.press("Enter")
    until(page, "document.querySelectorAll('#timeline li').length === 1 && !document.querySelector('#go').disabled")
    page.keyboard.press("Alt+1")  # the first suggestion
    until(page, "document.querySelectorAll('#timeline li').length === 2 && !document.querySelector('#go').disabled")
    assert "> talk to Bo" in page.locator("#telling").inner_text()
    page.locator("#map [role=button]").focus()
    page.keyboard.press("Enter")
    until(page, "document.querySelectorAll('#timeline li').length === 3 && !document.querySelector('#go').disabled")
    assert "> go north" in page.locator("#telling").inner_text()


def test_waiting_between_stages_and_editing_a_slot(page: Any) -> None:
    page.click("#open-stages")
    page.check("#pause-list input[value=dream]")
    page.fill("#action", "sing")
    page.keyboard.press("Enter")
    page.wait_for_selector("#paused:not([hidden])")
    page.fill("#slot-intent", "It rains frogs")
    page.click("text=Keep intent")
    until(page, "document.querySelector('#telling').innerText.includes('frogs')")
    page.click("text=go on")
    until(page, "document.querySelectorAll('#timeline li').length === 1 && !document.querySelector('#go').disabled")
    assert "It rains frogs" in page.locator("#telling").inner_text()


def test_reloading_in_the_middle_and_two_visitors(page: Any, browser: Any, served: Served) -> None:
    page.click("#open-stages")
    page.check("#pause-list input[value=dream]")
    page.fill("#action", "sing")
    page.keyboard.press("Enter")
    page.wait_for_selector("#paused:not([hidden])")
    page.reload()
    page.wait_for_selector("#paused:not([hidden])")
    other_context = browser.new_context()
    other = other_context.new_page()
    other.goto(served.url)
    other.wait_for_selector("#paused:not([hidden])")
    assert other.locator("#go").is_disabled()
    other.click("text=go on")
    until(page, "document.querySelectorAll('#timeline li').length === 1 && !document.querySelector('#go').disabled")
    other_context.close()


def test_a_server_that_was_killed_and_came_back(page: Any, served: Served) -> None:
    act(page, "sing")
    served.kill()
    page.wait_for_selector("#connection:not([hidden])")
    served.start()
    page.wait_for_selector("#connection", state="hidden")
    assert page.locator("#timeline li").count() == 1
    act(page, "dance")
    assert page.locator("#timeline li").count() == 2


def test_a_failure_is_told_and_play_goes_on(page: Any) -> None:
    page.fill("#action", "fail")
    page.keyboard.press("Enter")
    page.wait_for_selector("#failure:not([hidden])")
    assert "the dreamer is out of <b>dreams</b>" in page.locator("#failure").inner_text()
    act(page, "sing")


def test_taking_back_and_branching(page: Any) -> None:
    act(page, "sing")
    act(page, "dance")
    page.click("#undo")
    until(page, "document.querySelectorAll('#timeline li').length === 1")
    page.click("#open-branches")
    page.fill("#branch-name", "<b>other</b>")
    page.click("text=Branch >> nth=-1")
    until(page, "document.querySelectorAll('#branch-list li').length === 2")
    act(page, "climb")
    assert page.locator("#timeline li").count() == 2
    page.click("#branch-list button:has-text('main')")
    until(page, "document.querySelectorAll('#timeline li').length === 1")


def test_of_the_past_the_page_asks_only_for_what_it_lacks(page: Any) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "/api/view" in request.url else None)
    for action in ("sing", "dance", "swim"):
        act(page, action)
    assert re.search(r"past=\w+&after=[01]$", asked[-1]), "the newest stored episode comes again, those before do not"
    page.locator("#timeline button").last.focus()
    page.keyboard.press("Alt+1")
    until(page, "document.querySelectorAll('#timeline li').length === 4 && !document.querySelector('#go').disabled")
    assert page.evaluate("document.activeElement.innerText").endswith("> sing"), "focus stays while the timeline grows"
    assert [row.split(" ", 1)[0] for row in page.locator("#timeline li").all_inner_texts()] == ["4", "3", "2", "1"]
    asked.clear()
    page.reload()
    until(page, "document.querySelectorAll('#timeline li').length === 4")
    page.wait_for_timeout(500)
    assert sum("past=" not in url for url in asked) == 1, "all of it comes once"


def test_a_storytelling_world_plays_stage_by_stage(browser: Any, tmp_path: Path) -> None:
    server = Served(tmp_path, "storytelling_world")
    page = browser.new_page()
    try:
        page.set_default_timeout(120_000)
        page.goto(server.url)
        page.wait_for_selector("#suggestions button")
        page.click("#open-stages")
        page.check("#pause-list input[value=environment]")
        page.fill("#action", "open the door")
        page.keyboard.press("Enter")
        page.wait_for_selector("#paused:not([hidden])")
        page.fill("#slot-intent", "Mara finds a letter.")
        page.click("text=Keep intent")
        until(page, "document.querySelector('#telling').innerText.includes('letter')")
        page.click("text=go on")
        until(page, "document.querySelectorAll('#timeline li').length === 1 && !document.querySelector('#go').disabled")
        assert "> open the door" in page.locator("#telling").inner_text()
        assert "Mara lit the lamp." in page.locator("#telling").inner_text()
        page.click("#telling summary")
        assert "Mara finds a letter." in page.locator("#telling").inner_text()
        until(page, "document.querySelector('#pictures img').naturalWidth === 512")
        assert page.locator("#map-box").is_hidden()
    finally:
        page.close()
        server.kill()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_needs_no_scrolling_sideways(browser: Any, served: Served, scheme: str) -> None:
    context = browser.new_context(viewport={"width": 360, "height": 740}, color_scheme=scheme, has_touch=True)
    page = context.new_page()
    page.goto(served.url)
    page.wait_for_selector("#suggestions button")
    act(page, "sing a very long song " * 12)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    color = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", color)[:3])) < 200) is (scheme == "dark")
    context.close()
