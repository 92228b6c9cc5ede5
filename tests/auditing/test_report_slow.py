"""The report as a reader meets it: in a browser, on a desk and on a phone, without network."""

from __future__ import annotations

import pytest
from auditing.audits import bare, exact, full, with_verdicts
from browser import PROGRAM, Browser

from nearfar.auditing.report import render_audit

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not PROGRAM, reason="needs Chromium")]

NASTY = "a_rather_long_name_without_a_space_<script>console.error(1)</script>$\\frac"

PAGES = {
    "three": lambda: with_verdicts(full()),
    "one": lambda: full({"resnet20": 0.9}, classes=("cat", "dog"), images=100, layers=30),
    "many": lambda: full(
        {f"{NASTY}{i}": 0.5 + 0.2 * i for i in range(8)},
        classes=tuple(f"{NASTY} {i}" for i in range(30)),
        images=300,
    ),
    "bare": lambda: bare({"net": exact({0.5: 0.4, 1.0: 0.8})}),
}


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("profile")) as running:
        yield running


@pytest.mark.parametrize("width", [1200, 360])
@pytest.mark.parametrize("name", PAGES)
def test_a_report_fits_its_reader(browser, tmp_path, name, width):
    file = tmp_path / "report.html"
    file.write_text(render_audit(PAGES[name]()), encoding="utf-8")
    browser.open(file, width)
    decoded = browser.value(
        "Promise.all([...document.images].map(i => i.decode())).then(() => document.images.length)"
    )
    assert decoded == browser.value("document.querySelectorAll('img').length")
    assert browser.messages == []
    assert browser.value("document.documentElement.scrollWidth") <= width
    assert browser.value("innerWidth") == width
    # Nothing is cut off but what scrolls in a box of its own; one drawing of each pair is shown.
    outside = "[...document.querySelectorAll('body *')].filter(e => !e.closest('.wide'))"
    assert browser.value(f"{outside}.every(e => e.getBoundingClientRect().right <= innerWidth + 1)")
    shown = "e => getComputedStyle(e).display != 'none'"
    for pair in ("large", "small"):
        figures = browser.value(f"[...document.querySelectorAll('.{pair}')].map({shown})")
        assert figures
        assert all(there == ((pair == "small") == (width == 360)) for there in figures)


def test_the_tests_see_what_is_wrong(browser, tmp_path):
    file = tmp_path / "broken.html"
    file.write_text(
        '<img src="https://example.com/a.png"><div style="width: 900px">x</div>'
        "<script>console.error('no')</script>"
    )
    browser.open(file, 360)
    assert any("fetches https://example.com" in message for message in browser.messages)
    assert any('"no"' in message for message in browser.messages)
    assert browser.value("document.documentElement.scrollWidth") >= 900


def test_a_report_prints(browser, tmp_path):
    file = tmp_path / "report.html"
    file.write_text(render_audit(PAGES["three"]()), encoding="utf-8")
    browser.open(file, 1200)
    browser.printed(tmp_path / "report.pdf")
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")
    browser.call("Emulation.setEmulatedMedia", media="print")
    browser.call(
        "Emulation.setDeviceMetricsOverride",
        width=720,
        height=1000,
        deviceScaleFactor=1,
        mobile=True,
    )
    # On paper nothing scrolls: what is wider than the page would be lost.
    assert browser.value("document.documentElement.scrollWidth") <= 720
    browser.call("Emulation.setEmulatedMedia", media="")
