from __future__ import annotations

import dataclasses
import math
import re
from html.parser import HTMLParser

import pytest
import torch
from auditing.audits import SCALES, bare, exact, full, result_of, with_verdicts

from nearfar.auditing.accuracy import ScaleCurve
from nearfar.auditing.report import render_audit
from nearfar.auditing.report.page import inline, png, shade, text_colour
from nearfar.auditing.report.tables import class_maps, losing_most
from nearfar.auditing.result import Audit, Failure, LayerScores
from nearfar.errors import InputError

NASTY = "<script>alert('1 & 2')</script>$\\frac{\nid=\"curves\" 象"


class Page(HTMLParser):
    """What a page holds: its elements, its text, and whether its tags close."""

    VOID = ("meta", "img", "br", "wbr")

    def __init__(self, html):
        super().__init__()
        self.tags, self.open, self.text, self.attributes = [], [], "", []
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.text += data

    def of(self, tag):
        return [attributes for name, attributes in self.attributes if name == tag]


@pytest.fixture(scope="module")
def audit():
    return with_verdicts(full())


@pytest.fixture(scope="module")
def html(audit):
    return render_audit(audit)


def headings(html):
    return re.findall(r"<h2>(.*?)</h2>", html)


def test_every_section_in_its_order(html, audit):
    assert headings(html) == [
        "The figures",
        "What the figures say",
        "How sure, and how often right",
        "Class by class",
        "The smallest change of size that flips an answer",
        "Known at 1×, and not at another size",
        "Layer by layer",
        "How the images were shown",
        "How this was made",
    ]
    page = Page(html)
    for words in (*audit.findings, *audit.provenance.values(), *audit.results["resnet20"].notes):
        assert words in page.text
    assert "failed top1@0.5>=0.5: resnet20 has 0.41" in " ".join(page.text.split())
    assert "passed top1@1>=0.7: resnet20 has 0.8" in " ".join(page.text.split())


def test_figures_are_those_of_the_curves(html, audit):
    text = " ".join(Page(html).text.split())
    for name, result in audit.results.items():
        curve = result.curve
        cells = [
            f"{100 * curve.accuracy(s):.0f} %"
            + "–".join(f"{100 * end:.0f}" for end in curve.interval(s))
            for s in SCALES
        ]
        assert "".join(cells) in text, name
        errors = "".join(
            f"{100 * curve.figure('ece', s):.0f}"
            + "–".join(f"{100 * end:.0f}" for end in curve.interval(s, "ece"))
            for s in SCALES
        )
        assert name + errors in text
        changed = "".join(
            f"{100 * curve.figure('flips', s):.0f} %"
            + ("–".join(f"{100 * end:.0f}" for end in curve.interval(s, "flips")) if s != 1 else "")
            for s in SCALES
        )
        assert name + changed in text
    assert "272,47440.8 M21.5 ms24.0 MiB" in text
    assert "280,4741.03×81.6 M2.00×58.0 ms2.70×33.0 MiB1.38×" in text


def test_a_page_stands_alone_and_speaks_to_screen_readers(html):
    page = Page(html)
    assert "script" not in page.tags
    assert "link" not in page.tags
    fetched = re.findall(r'(?:src|href|url)\s*[=(]\s*["\']?([^"\')]{0,40})', html)
    assert all(place.startswith(("data:image/png;base64,", "#")) for place in fetched), fetched
    ids = re.findall(r'\bid="([^"]*)"', html)
    assert len(ids) == len(set(ids)) > 100
    assert set(re.findall(r'(?:url\(|href=")#([^")]*)', html)) <= set(ids)
    for svg in page.of("svg"):
        assert svg["role"] == "img"
        assert svg["aria-labelledby"] in ids
    assert page.tags.count("title") == page.tags.count("svg") + 1
    assert all(image["alt"] for image in page.of("img"))
    assert all(head.get("scope") for head in page.of("th"))


def test_the_same_audit_gives_the_same_page(html):
    assert render_audit(with_verdicts(full())) == html


def test_anybody_s_names_are_text():
    found = full({NASTY: 1.0, f"_{NASTY}": 2.0}, classes=(NASTY, "$", "_"), images=60)
    layers = LayerScores((NASTY,), (2.0,), (0.5,), ((0.1,),), {NASTY: NASTY}, 20)
    found = dataclasses.replace(
        found,
        results={
            name: dataclasses.replace(result, layers=layers, source=NASTY, notes=(NASTY,))
            for name, result in found.results.items()
        },
        provenance={NASTY: NASTY},
    )
    html = render_audit(found)
    page = Page(html)
    assert "script" not in page.tags
    assert "alert('1 & 2')" in page.text
    ids = re.findall(r'<[^>]*\bid="([^"]*)"', html)
    assert len(ids) == len(set(ids))


def test_what_was_not_measured_has_no_section():
    html = render_audit(bare({"net": exact({0.5: 0.4, 1.0: 0.8})}, classes=("thing",)))
    assert headings(html) == ["The figures"]
    for word in ("None", "nan", "not known", "five likeliest", "Left out", "<ul", "<dl"):
        assert word not in html.partition("</style>")[2], word
    one = render_audit(bare({"net": exact({1.0: 0.8})}))
    assert "answers other than" not in one
    assert "each shown at 1 size;" in one


def test_what_some_lack_is_said(audit):
    first, second = list(audit.results)[:2]
    results = dict(audit.results)
    results[second] = dataclasses.replace(
        results[second],
        cost=None,
        memory=None,
        flips=None,
        layers=LayerScores((), (), (), (), {"all layers": "too few images"}, 7),
        failures=(),
        curve=dataclasses.replace(results[second].curve, confidence=None, top5=None),
    )
    html = render_audit(dataclasses.replace(audit, results=results))
    assert html.count("<td>not known</td>") == 3
    assert "all layers: too few images" in html
    assert "There were 7 images." in html
    assert f"Mean confidence and accuracy of {first}" in html
    assert f"Mean confidence and accuracy of {second}" not in html


def test_classes_that_lose_most_are_shown():
    count = 30
    labels = torch.arange(10 * count) % count
    nth = torch.arange(10 * count) // count
    # Class k is wrong at 0.5× on k mod 10 of its ten images; of the last there is none.
    half = torch.where(nth < labels % 10, (labels + 1) % count, labels)
    curve = ScaleCurve((0.5, 1.0), torch.stack([half, labels]), labels)
    names = tuple(f"class {k}" for k in range(count + 1))
    results = {"net": result_of(curve, classes=names)}
    expected = sorted(range(count), key=lambda k: (-(k % 10), k))
    assert losing_most(results) == expected
    found = class_maps(results, (0.5, 1.0))
    assert [row["name"] for row in found["maps"][0]["classes"]] == [names[k] for k in expected[:20]]
    assert [cell["text"] for cell in found["maps"][0]["classes"][0]["cells"]] == ["10", "100"]
    assert found["note"] == (
        "Right answers in per cent, of 10 test images a class; darker is worse. These are the 20 of 31 "
        "classes that lose most from 1× to the other sizes."
    )
    assert class_maps({"net": result_of(curve, classes=("one",))}, (0.5, 1.0)) is None


def test_a_class_without_images_is_no_class_that_loses():
    curve = exact({0.5: 0.4, 1.0: 0.8})
    found = class_maps({"net": result_of(curve, classes=("cat", "dog"))}, (0.5, 1.0))
    assert [row["name"] for row in found["maps"][0]["classes"]] == ["cat"]


def test_long_lists_are_cut_and_say_so():
    found = full(
        {"net": 1.0}, classes=tuple(f"class {k}" for k in range(25)), layers=30, failures=15
    )
    html = render_audit(found)
    assert "These are the 20 of 25 classes that lose most" in html
    assert "24 of 30 layers, evenly spread." in html
    assert "3 more are left out here." in html
    assert html.count("<img") == 24


def test_notes_that_are_true_of_all_stand_once(audit):
    own = dataclasses.replace(
        audit.results["si_resnet20"], notes=(*audit.results["si_resnet20"].notes, "Its own note.")
    )
    html = render_audit(dataclasses.replace(audit, results={**audit.results, "si_resnet20": own}))
    shown = html.partition("How the images were shown")[2].partition("<h2>")[0]
    assert shown.count("Above 2×") == 1
    assert "<h3>si_resnet20</h3>" in shown
    assert shown.count("<h3>") == 1


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_images_of_any_channels_are_shown(channels):
    image = torch.full((channels, 5, 4), 2.0)
    image[0, 0, 0] = math.nan
    assert png(image).startswith("data:image/png;base64,iVBOR")


def test_an_unsure_failure_says_no_confidence():
    failure = Failure(3, 0.5, 0, 1, math.nan, torch.zeros(1, 8, 8), torch.zeros(1, 80, 80))
    result = result_of(exact({0.5: 0.4, 1.0: 0.8}), failures=(failure,))
    html = render_audit(Audit({"net": result}, "net", (), 0.05))
    assert "% sure" not in html.partition("Known at")[2]
    assert 'class="smooth"' in html


def test_every_cell_of_the_heat_map_is_legible():
    def luminance(colour):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), parts, strict=True))

    for k in range(101):
        colour = shade(k / 100)
        light, dark = sorted((luminance(colour), luminance(text_colour(colour))), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, k
    assert shade(1.0) == "#ffffff"
    assert shade(0.0) == "#7f0000"


def test_ids_are_renamed_in_tags_and_nowhere_else():
    from nearfar.auditing.plots import plot_curves

    svg = inline(plot_curves({'url(#x) id="y"': exact({0.5: 0.2, 1.0: 0.9})}), "key", "It <says>.")
    assert 'url(#x) id="y"' in Page(str(svg)).text
    assert '<title id="key-description">It &lt;says&gt;.</title>' in svg
    assert set(re.findall(r'<[^>]*\bid="(\w+)-', svg)) == {"key"}


def test_refusals(audit):
    with pytest.raises(InputError, match="baseline must be one of the results"):
        render_audit(dataclasses.replace(audit, baseline="another"))
    with pytest.raises(InputError, match="baseline must be one of the results"):
        render_audit(Audit({}, "net", (), 0.05))
    mixed = {"a": result_of(exact({0.5: 0.2, 1.0: 0.9})), "b": result_of(exact({1.0: 0.9}))}
    with pytest.raises(InputError, match="same images and scales; b has 100 images"):
        render_audit(Audit(mixed, "a", (), 0.05))
    curve = mixed["a"].curve
    others = dataclasses.replace(curve, labels=1 - curve.labels)
    with pytest.raises(InputError, match="same images and scales; b has 100 images"):
        render_audit(Audit({"a": result_of(curve), "b": result_of(others)}, "a", (), 0.05))
