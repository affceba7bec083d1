"""The page in a browser: it sorts and filters, by mouse and by keyboard, on a phone, in the dark, without a network."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from helpers.made_records import evaluation, record, save, three_models
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

from neuralop_bench import leaderboard
from neuralop_bench.board.collect import collect
from neuralop_bench.board.rows import Board
from neuralop_bench.board.run import Run

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium (make browser-packages installs Debian's)")

DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 375, "height": 812}


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("board")
    records = [*three_models(), record("old", error=0.2, samples={}, profile={})]
    left_out = record("late", config={})
    save(folder, *records, *map(evaluation, records[:14]), left_out)
    found = collect([folder])
    bold = Run(record("<b>bold</b>", error=0.09))  # a file with such a name would be refused
    leaderboard.write(Board.of(replace(found, runs=(*found.runs, bold))), folder / "out")
    return (folder / "out" / "index.html").as_uri()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        # Root, as in containers, may not use Chromium's sandbox.
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield found
        found.close()


@pytest.fixture(params=[DESKTOP, pytest.param(PHONE, marks=pytest.mark.exhaustive)], ids=["desktop", "phone"])
def page(request: pytest.FixtureRequest, browser: Browser, address: str) -> Iterator[Page]:
    """The page, which must be silent on the console and ask for nothing."""
    opened = browser.new_page(viewport=request.param)
    words: list[str] = []
    asked: list[str] = []

    def hear(message: ConsoleMessage) -> None:
        words.append(message.text)

    opened.on("console", hear)
    opened.on("pageerror", lambda error: words.append(str(error)))
    opened.on("request", lambda sent: asked.append(sent.url))
    opened.goto(address)
    yield opened
    opened.close()
    assert words == []
    assert [url for url in asked if url != address and not url.startswith("data:")] == []


def names(page: Page, section: int = 0) -> list[str]:
    rows = page.locator("section.task").nth(section).locator("table.board tbody tr:visible th")
    return [text.strip() for text in rows.all_inner_texts()]


def test_columns_sort_by_click_and_by_key(page: Page) -> None:
    table = page.locator("section.task").nth(1).locator("table.board")
    start = names(page, 1)
    assert start[0] == "fno"
    head = table.get_by_role("columnheader", name="relative L2")
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    rising = names(page, 1)
    head.get_by_role("button").press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    assert names(page, 1) == rising[::-1]
    assert rising == ["fno", "lsm", "unet", "<b>bold</b>", "old"]
    assert table.locator("th[aria-sort]").count() == 1
    table.get_by_role("columnheader", name="model").get_by_role("button").click()
    assert names(page, 1) == sorted(start, key=str.lower)


def test_empty_cells_come_last_whichever_way(page: Page) -> None:
    head = page.locator("section.task").nth(1).locator("table.board").get_by_role("columnheader", name="rank")
    for _ in range(2):
        head.get_by_role("button").click()
        assert names(page, 1)[-1] == "old"


def test_rows_are_filtered_by_name_and_sections_by_dataset(page: Page) -> None:
    page.get_by_label("Model").fill("BOLD")
    assert names(page, 1) == ["<b>bold</b>"]
    assert names(page, 0) == []
    assert page.get_by_role("status").inner_text() == "1 row shown"
    page.get_by_label("Model").fill("")
    page.get_by_label("Dataset").select_option("darcy2d")
    assert page.locator("section.task:visible").count() == 1
    assert page.get_by_role("status").inner_text() == "3 rows shown"
    page.get_by_label("Dataset").select_option("")
    page.locator("#track").select_option("lite")
    assert page.locator("section.task:visible").count() == 2


def test_families_of_columns_come_and_go(page: Page) -> None:
    table = page.locator("table.board").first
    assert not table.get_by_role("columnheader", name="parameters").is_visible()
    page.get_by_label("Cost").check()
    assert table.get_by_role("columnheader", name="parameters").is_visible()
    page.get_by_label("Accuracy").uncheck()
    assert not table.get_by_role("columnheader", name="95 % interval").is_visible()
    assert table.get_by_role("columnheader", name="relative L2").is_visible(), "always there"


@pytest.mark.parametrize("page", [DESKTOP, PHONE], ids=["desktop", "phone"], indirect=True)
def test_nothing_but_tables_is_wider_than_the_screen(page: Page) -> None:
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    regions = page.locator(".scroll")
    assert regions.count() == page.locator(".scroll[tabindex='0'][aria-label]").count() > 0


def test_it_is_reached_by_keyboard_alone(page: Page) -> None:
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")  # what follows it reaches the page's handle a moment later: expect waits
    expect(page).to_have_url(re.compile("#main$"))
    summary = page.locator("summary").first
    summary.focus()
    page.keyboard.press("Enter")
    expect(summary.locator("xpath=..")).to_have_attribute("open", "")


@pytest.mark.parametrize(
    ("page", "scheme"),
    [
        (DESKTOP, "light"),
        pytest.param(PHONE, "dark", marks=pytest.mark.exhaustive),
        pytest.param(DESKTOP, "dark", marks=pytest.mark.exhaustive),
        pytest.param(PHONE, "light", marks=pytest.mark.exhaustive),
    ],
    ids=["desktop-light", "phone-dark", "desktop-dark", "phone-light"],
    indirect=["page"],
)
def test_accessibility_checkers_find_nothing(page: Page, scheme: Any) -> None:
    page.emulate_media(color_scheme=scheme)
    page.evaluate("for (const box of document.querySelectorAll('.family')) if (!box.checked) box.click()")
    found = Axe().run(page).response["violations"]
    assert [(entry["id"], entry["nodes"][0]["html"][:120]) for entry in found] == []


def test_colours_follow_the_scheme(page: Page) -> None:
    shades = []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        line = page.evaluate("getComputedStyle(document.querySelector('svg.plot path[style*=\"--s\"]')).stroke")
        shades.append((background, line))
    assert shades[0][0] != shades[1][0]
    assert shades[0][1] != shades[1][1]


def test_names_and_reasons_are_text(page: Page) -> None:
    assert page.locator("b", has_text="bold").count() == 0
    assert page.get_by_text("it has no provenance", exact=False).count() == 1
    missing = page.locator("section.task").nth(1).locator("table.board tr[data-name='old']").locator(".blank").first
    assert "evaluator=thorough" in (missing.get_attribute("title") or "")


def test_identifiers_are_used_once_and_pictures_are_described(page: Page) -> None:
    doubled = page.evaluate(
        "(() => { const ids = [...document.querySelectorAll('[id]')].map((e) => e.id);"
        " return ids.filter((id, i) => ids.indexOf(id) !== i); })()"
    )
    assert doubled == []
    assert page.locator("img:not([alt]), svg.plot:not([aria-label])").count() == 0
    assert page.locator("svg.plot").count() >= 6


def test_without_scripts_everything_can_be_read(browser: Browser, address: str) -> None:
    context = browser.new_context(java_script_enabled=False, offline=True)
    page = context.new_page()
    page.goto(address)
    assert not page.locator(".controls").is_visible()
    assert names(page, 1)[0] == "fno"
    assert page.locator("table.board td:visible").count() > 100
    context.close()
