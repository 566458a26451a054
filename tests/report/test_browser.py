"""A report in headless Chromium, without JavaScript: at three widths, in dark mode, and in print.

pip install playwright && playwright install chromium      # or your system's chromium
SCREENSHOTS=/tmp pytest tests/report/test_browser.py       # and look at them
"""

import os
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from networks import MODELS
from onnx import numpy_helper

import bnfold
from bnfold.report import save_report

api = pytest.importorskip("playwright.sync_api")

WIDTHS = (360, 768, 1280)
LONG = "a_name_without_any_place_to_break_" * 6
NASTY = "</script><img src=x onerror=console.log(1)>\u202e"
OUTSIDE = """() => [...document.querySelectorAll('body *')]
    .filter(each => each.checkVisibility() && !each.closest('.wide'))
    .map(each => [each.tagName, each.getBoundingClientRect()])
    .filter(([_, box]) => box.width && (box.right > innerWidth + 1 || box.left < -1)).map(([tag, _]) => tag)"""
TOO_WIDE = """() => [...document.querySelectorAll('.box')].filter(box => box.checkVisibility()).flatMap(box =>
    [...box.querySelectorAll('text')].filter(text => text.getBBox().width > 164).map(text => text.textContent))"""
FAINT = """() => {
  const light = colour => {
    const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map(part => part / 255)
      .map(part => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = each => {
    const colour = getComputedStyle(each).backgroundColor;
    return /, 0\\)$/.test(colour) ? behind(each.parentElement) : colour;
  };
  const contrast = each => {
    const [less, more] = [light(getComputedStyle(each).color), light(behind(each))].sort((a, b) => a - b);
    return (more + 0.05) / (less + 0.05);
  };
  return [...document.querySelectorAll('h1, h2, h3, h4, p, td, th, dt, dd, li, a, summary, figcaption, .key span')]
    .filter(each => each.checkVisibility() && each.textContent.trim() && contrast(each) < 4.5)
    .map(each => each.textContent);
}"""
"""What cannot be read easily: the limit is that of the Web Content Accessibility Guidelines."""


def preact():
    return bnfold.optimize((MODELS / "digits_preact.onnx").read_bytes()), ""


def long_and_nasty_names():
    model = onnx.load(MODELS / "digits_resnet.onnx")
    for number, node in enumerate(model.graph.node):
        node.name = f"{LONG if number % 2 else NASTY}{number}"
    return bnfold.optimize(model, verify="off"), ""


def different():
    model = onnx.load(MODELS / "digits_resnet.onnx")
    weight = next(tensor for tensor in model.graph.initializer if len(tensor.dims) == 4)
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(1.01), weight.name))
    return bnfold.verify(MODELS / "digits_resnet.onnx", model), "digits_resnet.onnx and broken.onnx"


def calibrated():
    return bnfold.calibrate(MODELS / "digits_mlp.train.onnx", MODELS / "digits_train.npz", max_samples=64), ""


def drifted():
    images = np.load(MODELS / "digits_test.npz")
    data = {name: images[name][:64] * np.float32(1.5) for name in images.files}
    return bnfold.drift(MODELS / "digits_mlp.onnx", data), ""


MADE = (preact, long_and_nasty_names, different, calibrated, drifted)


@pytest.fixture(scope="module", params=MADE, ids=lambda made: made.__name__)
def report(request, tmp_path_factory):
    result, source = request.param()
    path = tmp_path_factory.mktemp("report") / f"{request.param.__name__}.html"
    save_report(result, path, source=source)
    return path


@pytest.fixture(scope="module")
def browser():
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with api.sync_playwright() as playwright:
        try:
            running = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        except api.Error:
            pytest.skip("there is no Chromium")
        yield running
        running.close()


@pytest.fixture
def opened(browser, report):
    """Opens the report; at the end, nothing was said on the console and nothing else was asked for."""
    said, asked = [], []

    def open_it(**more):
        page = browser.new_page(java_script_enabled=False, **more)
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(report.as_uri())
        return page

    yield open_it
    assert said == []
    assert {url for url in asked if not url.startswith("data:,")} == {report.as_uri()}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_it_fits_and_can_be_read(opened, report, width, scheme):
    """Nothing reaches out of the page, no text out of its box, all text stands out; also where all is opened."""
    page = opened(viewport={"width": width, "height": 900}, color_scheme=scheme)
    if folder := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=Path(folder, f"{report.stem}-{width}-{scheme}.png"), full_page=True)
    page.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true })")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(OUTSIDE) == []
    assert page.evaluate(TOO_WIDE) == []
    assert page.evaluate(FAINT) == []
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(246, 247, 249)"
    assert dark == (scheme == "dark")


def test_it_prints(opened, report, tmp_path):
    """On white, without what is for a screen, whatever the screen is like."""
    page = opened(color_scheme="dark")
    if folder := os.environ.get("SCREENSHOTS"):
        page.pdf(path=Path(folder, f"{report.stem}.pdf"), format="A4")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not page.locator("nav").is_visible()
    assert page.locator("section").first.is_visible()
    assert page.evaluate(FAINT) == []
