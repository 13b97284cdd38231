"""The page: its files, and what a person sees in a browser."""

import re
import shutil
import threading
import time
from pathlib import Path

import pytest
import uvicorn
from starlette.testclient import TestClient

from seedjax.cli.serve import listening
from seedjax.server import ServerConfig, create_app

PAGE = Path(__file__).parents[2] / "seedjax" / "server" / "page"


def test_its_files_are_served_and_need_nothing_from_elsewhere(chatting):
    keys = frozenset({"0" * 64})
    config = ServerConfig(name="tiny", max_new_tokens=16, page=True, key_digests=keys)
    client = TestClient(
        create_app(chatting, config), base_url="http://localhost"
    )  # started, nothing would compile
    found = client.get("/")
    assert found.status_code == 200 and found.headers["content-type"].startswith(
        "text/h"
    )
    assert "default-src 'self'" in found.headers["content-security-policy"]
    names = re.findall(r'(?:src|href)="(page/[^"]+)"', found.text)
    assert len(names) > 2
    for file in PAGE.rglob("*.*"):
        name = f"page/{file.relative_to(PAGE)}"
        response = client.get(f"/{name}")
        assert response.status_code == 200 and response.content == file.read_bytes()
        if "vendor" not in name:
            links = re.findall(r"https?://[^\s\"']+", file.read_text())
            assert set(links) <= {"http://www.w3.org/2000/svg"}, name
        for other in re.findall(r'from "\./([^"]+)"', file.read_text()):
            assert (file.parent / other).is_file(), f"{name} imports {other}"
    tag = found.headers["etag"]
    assert client.get("/", headers={"If-None-Match": tag}).status_code == 304
    for name in ("page/none.js", "page/../page.py", "page/%2e%2e/page.py"):
        assert client.get(f"/{name}").status_code == 404


def test_labels_and_ids():
    """Every control has a name, and every element that a script looks for is there."""
    html = (PAGE / "index.html").read_text()
    ids = re.findall(r'id="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    for file in PAGE.glob("*.js"):
        for name in re.findall(r'\$\("([^"]+)"\)', file.read_text()):
            assert name in ids, f"{file.name} looks for {name}"
    assert set(re.findall(r'aria-labelledby="([^"]+)"', html)) <= set(ids)
    for control in re.findall(r"<(?:input|select)[^>]*>", html):
        before = html[: html.index(control)]
        assert before.rfind("<label") > before.rfind("</label"), control


def test_without_the_page_there_is_none(client):
    assert client.get("/").status_code == 404
    body = {"prompt": "x", "policy": "one_by_one", "max_tokens": 2}
    found = client.post("/v1/completions", json=body)
    assert found.status_code == 400 and found.json()["error"]["param"] == "policy"


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """A server with `mini`, its page and a store."""
    import seedjax

    store = tmp_path_factory.mktemp("feedback") / "choices.db"
    config = ServerConfig(
        name="mini", num_slots=2, max_new_tokens=96, page=True, feedback=str(store)
    )
    sock = listening("127.0.0.1", 0)
    app = create_app(seedjax.load("mini"), config)
    server = uvicorn.Server(uvicorn.Config(app, log_config=None))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
    thread.start()
    yield "http://{}:{}/".format(*sock.getsockname())
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("there is no Chromium")
    with playwright.sync_playwright() as started:
        yield started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])


@pytest.fixture
def page(browser, address):
    """The page, ready, without the tour; errors of its scripts fail the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 860})
    context.add_init_script("localStorage.setItem('seedjax-tour', '1')")
    opened = context.new_page()
    faults: list[str] = []
    requests: list[str] = []
    opened.on("pageerror", lambda error: faults.append(str(error)))
    opened.on("request", lambda request: requests.append(request.url))
    opened.goto(address)
    until(opened, "#server", "ready", 240)
    yield opened
    assert faults == []
    assert all(url.startswith(address) for url in requests)  # works offline
    context.close()


def until(page, selector: str, text: str, seconds: float = 120) -> str:
    """The text of an element, once it matches."""
    end = time.monotonic() + seconds
    while not re.search(text, found := page.text_content(selector)):
        assert time.monotonic() < end, f"{selector}: {found}"
        page.wait_for_timeout(50)
    return found


def code(page) -> str:
    return "\n".join(page.locator(".cm-line").all_text_contents())


def choose(page, example: str) -> None:
    page.select_option("#examples", label=example)


@pytest.mark.slow
def test_generating_is_watched_and_accepted(page):
    page.keyboard.press("Control+Enter")
    until(page, "#status", "Done: ")
    slider = page.locator("#step")
    last = int(slider.get_attribute("max"))
    assert last > 5
    # By keyboard: the beginning, the middle and the end.
    slider.focus()
    page.keyboard.press("Home")
    until(page, "#step-text", f"^1 of {last + 1}")
    assert page.locator("#canvas .masked").count() > 0
    assert page.locator("#canvas .proposed").count() > 0
    for _ in range(last - 2):
        page.keyboard.press("ArrowRight")
    assert page.locator("#canvas .committed").count() > 0
    page.keyboard.press("End")
    assert page.locator("#canvas .masked").count() == 0
    assert slider.get_attribute("aria-valuetext") == f"{last + 1} of {last + 1}, done"
    canvas = page.locator("#canvas")
    canvas.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert re.match(r"2: \".*\", committed, confidence \d", page.text_content("#token"))
    assert canvas.get_attribute("aria-activedescendant") == "canvas-1"
    page.hover("#canvas-4")
    assert page.text_content("#token").startswith("5: ")
    assert float(page.text_content("#figure-per-forward")) > 1.5
    page.click("#accept")
    until(page, "#feedback", "1 accepted, 0 rejected")
    names: dict = {}
    exec(code(page), names)
    assert [n for n in range(12) if names["is_prime"](n)] == [2, 3, 5, 7, 11]


@pytest.mark.slow
def test_infill_repair_and_edit(page):
    choose(page, "infill: a loop")
    page.click("#infill")
    until(page, "#status", "Done: ")
    page.click("#accept")
    assert "pass" not in code(page) and "for " in code(page)
    choose(page, "repair: the largest")
    before = code(page)
    page.click("#repair")
    until(page, "#status", "Done: ")
    page.click("#reject")
    until(page, "#feedback", "1 rejected")
    assert code(page) == before
    page.click("#repair")
    until(page, "#status", "Done: ")
    page.click("#accept")
    names: dict = {}
    exec(code(page), names)
    assert names["largest"]([3, 5, 2]) == 5
    choose(page, "edit: another name")
    page.click("#edit")
    until(page, "#status", "Done: ")
    page.click("#accept")
    assert code(page).startswith("def add_up(values):")


@pytest.mark.slow
def test_the_race(page):
    page.click("#race")
    until(page, "#status", "times as many tokens per second", 240)
    until(page, "#result-1", "forward passes", 60)
    page.click("#race-close")
    assert page.locator("#single").is_visible()


@pytest.mark.slow
def test_refusals_and_the_tour(page):
    page.click("summary:has-text('Settings')")
    page.fill("#tokens", "9999")
    page.click("#generate")
    until(page, "#status", "Refused: max_tokens is 9999")
    page.fill("#tokens", "64")
    page.focus("#open-tour")
    page.keyboard.press("Enter")
    titles = []
    for _ in range(5):
        titles.append(page.text_content("#tour-title"))
        assert page.locator(".spot").count() == 1
        assert page.evaluate("document.activeElement.id") == "tour-title"
        page.click("#tour-next")
    assert len(set(titles)) == 5
    assert not page.locator("#tour").is_visible()
    assert page.evaluate("document.activeElement.id") == "open-tour"


def test_cells_of_every_state_look_different():
    """By colour, and by something that is no colour."""
    css = (PAGE / "style.css").read_text()
    rules = dict(re.findall(r"^\.cell\.(\w+) \{([^}]*)\}", css, re.MULTILINE))
    shapes = {}
    for state in ("masked", "proposed", "edited", "inserted", "deleted"):
        shape = re.sub(r"var\(--\w+(-\w+)?\)", "", rules[state])
        marks = re.findall(rf'\.cell\.{state}::before \{{ content: "(.)"', css)
        shapes[state] = (shape, *marks)
        assert "var(--" in rules[state]
    assert len(set(shapes.values())) == len(shapes)
    html = (PAGE / "index.html").read_text()
    assert all(f'class="cell {state}"' in html for state in [*shapes, "committed"])
