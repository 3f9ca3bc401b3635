"""A real browser for tests: Debian's Chromium, driven by Playwright's package, which brings none of its own.

What is wrong in the browser's eyes is collected: errors on its console, requests to another host, and what a
person who uses a screen reader or the keyboard would miss.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Browser, ConsoleMessage, Page, async_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PHONE = 390
PATIENCE_MS = 120_000
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium on PATH")

NAMED = frozenset(
    (
        "button",
        "link",
        "textbox",
        "searchbox",
        "combobox",
        "checkbox",
        "spinbutton",
        "radio",
        "meter",
        "progressbar",
        "image",
        "img",
        "region",
        "navigation",
        "search",
        "dialog",
    )
)
"""What has to have a name by which it is told."""
LANDMARKS = frozenset(("banner", "main", "navigation", "region", "search", "form", "contentinfo"))
"""Parts of a page that somebody jumps between: two of a kind with one name cannot be told apart."""
QUIET = frozenset(("generic", "none", "LayoutTable"))
"""Roles that say nothing: what the keyboard comes to has another one."""
CONTRAST = """() => {
    const channel = (v) => { v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; };
    const parse = (text) => (text.match(/[\\d.]+/g) ?? []).map(Number);
    const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
    const ground = (element) => {
        for (let each = element; each; each = each.parentElement) {
            const colour = parse(getComputedStyle(each).backgroundColor);
            if (colour.length === 3 || colour[3] > 0.99) return colour;
        }
        return matchMedia("(prefers-color-scheme: dark)").matches ? [0, 0, 0] : [255, 255, 255];
    };
    const poor = [];
    for (const element of document.querySelectorAll("body *")) {
        const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
        if (!own || element.closest("svg, script, style, .skip")) continue;
        if (!element.getClientRects().length || element.disabled) continue;
        const style = getComputedStyle(element), size = parseFloat(style.fontSize);
        const [one, other] = [light(parse(style.color)), light(ground(element))].sort((a, b) => b - a);
        const ratio = (one + 0.05) / (other + 0.05);
        const wanted = size >= 24 || (size >= 18.66 && style.fontWeight >= 700) ? 3 : 4.5;
        const told = `${element.tagName} ${element.textContent.trim().slice(0, 30)}`;
        if (ratio < wanted) poor.push(`${told}: a contrast of ${ratio.toFixed(2)}`);
    }
    return poor;
}"""
SHAPE = """() => ({
    mains: document.querySelectorAll("main").length,
    headings: [...document.querySelectorAll("h1, h2, h3, h4")].map((heading) => Number(heading.tagName[1])),
    tables: document.querySelectorAll("table:not(:has(th[scope=col]))").length,
    unnamed: [...document.querySelectorAll("th")].filter((cell) => !cell.textContent.trim()).length,
    stuck: [...document.querySelectorAll("main *")].filter((each) => {
        const { overflowX, overflowY } = getComputedStyle(each), scrolls = /auto|scroll/;
        const more = (each.scrollWidth > each.clientWidth + 1 && scrolls.test(overflowX)) ||
            (each.scrollHeight > each.clientHeight + 1 && scrolls.test(overflowY));
        return more && each.tabIndex < 0 && ![...each.querySelectorAll("*")].some((one) => one.tabIndex >= 0);
    }).length,
    ids: [...document.querySelectorAll("[id]")].map((element) => element.id),
    lost: ["aria-labelledby", "aria-describedby", "for"].flatMap((name) =>
        [...document.querySelectorAll(`[${name}]`)].flatMap((each) => each.getAttribute(name).split(" "))
    ).filter((id) => id && !document.getElementById(id)),
    jumps: [...document.querySelectorAll("[tabindex]")].filter((each) => each.tabIndex > 0).length,
    buried: [...document.querySelectorAll("[aria-hidden=true], [role=img]")].flatMap((each) =>
        [each, ...each.querySelectorAll("*")]
    ).filter((each) => each.tabIndex >= 0 && each.getClientRects().length && !each.disabled).length,
    unlisted: [...document.querySelectorAll("ul > *, ol > *")].filter((each) => each.tagName !== "LI").length,
    language: document.documentElement.lang,
    width: document.documentElement.scrollWidth,
})"""


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """A browser."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            await browser.close()


@asynccontextmanager
async def opened(
    url: str, problems: list[str], browser: Browser | None = None, **options: Any
) -> AsyncIterator[Page]:
    """A page of a browser, a new one if none is given. `problems` gets what the browser
    complains of."""
    if browser is None:
        async with chromium() as new, opened(url, problems, new, **options) as page:
            yield page
        return
    context = await browser.new_context(base_url=url, **options)
    try:
        page = await context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on("console", lambda line: problems.extend(_complaint(line)))
        page.on("dialog", lambda dialog: problems.append(f"a dialog: {dialog.message}"))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda request: problems.extend(_foreign(request.url, url)))
        yield page
    finally:
        await context.close()


async def barriers(page: Page) -> list[str]:
    """What keeps people from using the page: controls without a name, headings out of order, tables without
    headers, two elements of one id, text that is hard to tell from its ground, a page that is too wide."""
    shape: dict[str, Any] = await page.evaluate(SHAPE)
    found = await _unclear(page)
    if shape["mains"] != 1:
        found.append(f"{shape['mains']} main parts")
    levels = shape["headings"]
    if levels[:1] != [1] or levels.count(1) != 1:
        found.append(f"the page does not begin with its one heading: {levels}")
    found += [f"a heading of level {b} after one of {a}" for a, b in pairwise(levels) if b > a + 1]
    if shape["tables"]:
        found.append(f"{shape['tables']} tables without headers of columns")
    if len(set(shape["ids"])) != len(shape["ids"]):
        found.append(f"ids that are there twice: {shape['ids']}")
    found += [f"a name is to come of {lost}, which is not there" for lost in shape["lost"]]
    for what, count in (("jumps of the keyboard", "jumps"), ("controls nobody is told of", "buried"),
                        ("parts of lists that are none", "unlisted"), ("headers of nothing", "unnamed"),
                        ("parts that only a mouse can scroll", "stuck")):  # fmt: skip
        if shape[count]:
            found.append(f"{shape[count]} {what}")
    if shape["language"] != "en":
        found.append("no language")
    viewport = page.viewport_size
    if viewport is not None and shape["width"] > viewport["width"]:
        found.append(f"{shape['width']} wide in {viewport['width']}")
    contrast: list[str] = await page.evaluate(CONTRAST)
    return found + contrast


async def _unclear(page: Page) -> list[str]:
    """What the accessibility tree, which screen readers go by, lacks."""
    session = await page.context.new_cdp_session(page)
    try:
        nodes = (await session.send("Accessibility.getFullAXTree"))["nodes"]
    finally:
        await session.detach()
    told = [
        (str(node["role"]["value"]), str(node.get("name", {}).get("value", "")).strip(), _properties(node))
        for node in nodes
        if not node.get("ignored") and node.get("role")
    ]
    found = [f"a {role} without a name" for role, name, _ in told if role in NAMED and not name]
    found += [
        f"the keyboard comes to something that is a {role}: {name}"
        for role, name, properties in told
        if properties.get("focusable") and role in QUIET
    ]
    marks = Counter((role, name) for role, name, _ in told if role in LANDMARKS and (name or role != "form"))
    return found + [f"{count} times {role} {name}" for (role, name), count in marks.items() if count > 1]


def _properties(node: dict[str, Any]) -> dict[str, Any]:
    return {each["name"]: each.get("value", {}).get("value") for each in node.get("properties", ())}


def _complaint(line: ConsoleMessage) -> list[str]:
    """What an error on the console says, and of which address."""
    return [f"{line.text} {urlsplit(line.location['url']).path}"] if line.type == "error" else []


def _foreign(asked: str, own: str) -> list[str]:
    return [] if urlsplit(asked).netloc == urlsplit(own).netloc else [f"asked {asked}"]
