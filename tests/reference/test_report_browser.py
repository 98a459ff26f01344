"""The page in a real browser without a network: drawn whole, legends that work, paper, phone, what is read aloud."""

import dataclasses
import itertools
import shutil

import numpy as np
import pytest

pytest.importorskip("plotly", reason="reports need plotly: pip install hhat[report]")
pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")
pytest.importorskip("PIL.Image", reason="screenshots are read by pillow: pip install pillow")

from PIL import Image
from playwright.sync_api import sync_playwright

from hhat.bench.experiment import Profile, grid
from hhat.bench.report import write_report
from hhat.bench.run import run
from tests.units.bench_fakes import EXPERIMENT, White

CHROMIUM = shutil.which("chromium")
if CHROMIUM is None:
    pytest.skip("needs the browser chromium on the path: apt install chromium", allow_module_level=True)

DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
DRAWN = "html[data-drawn=all]"
CURVES = "run-test-white-full-nmse_db"
PANELS = "run-test-profiles-quick-nmse_db"
CONTRAST = """() => {
  const linear = c => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const light = c => { const [r, g, b] = c.map(linear); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const rgb = text => text.match(/[\\d.]+/g).map(Number);
  const ground = node => {
    for (; node; node = node.parentElement) {
      const c = rgb(getComputedStyle(node).backgroundColor);
      if (c.length < 4 || c[3] > 0) return c.slice(0, 3);
    }
    return [255, 255, 255];
  };
  const poor = [];
  const said = "h1,h2,h3,p,td,th,caption span,small,dt,dd,figcaption,summary,a,.verdict";
  for (const node of document.querySelectorAll(said)) {
    const [a, b] = [rgb(getComputedStyle(node).color).slice(0, 3), ground(node)].map(light).sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) poor.push(node.tagName + " " + node.textContent.slice(0, 40));
  }
  return poor;
}"""


def shifted(point):
    return White(float(point["snr_db"]) + (3.0 if point["profile"] == "B" else 0.0))


PROFILES = dataclasses.replace(
    EXPERIMENT,
    name="test/profiles",
    title="Two profiles",
    claims=(),
    scenario=shifted,
    profiles={"quick": Profile(grid({"profile": ("A", "B"), "snr_db": (0.0, 10.0)}), blocks=2, block_size=20)},
    metrics=("nmse_db",),
)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    run(EXPERIMENT, "full", folder, progress=False)
    run(PROFILES, "quick", folder, progress=False)
    write_report(folder, folder / "report.html")
    return (folder / "report.html").as_uri()


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def pages(browser, report):
    """The page offline, opened once per size: (page, what went wrong or was fetched). Tests leave it as it was."""
    found = {}
    for name, size in (("desktop", DESKTOP), ("phone", PHONE)):
        page, wrong = browser.new_context(viewport=size, offline=True).new_page(), []
        page.on("console", lambda message, wrong=wrong: wrong.append(message.text))
        page.on("pageerror", lambda error, wrong=wrong: wrong.append(str(error)))
        page.on("request", lambda request, wrong=wrong: wrong.append(request.url))
        page.goto(report)
        page.wait_for_selector(DRAWN, state="attached", timeout=20_000)
        found[name] = page, wrong
    yield found
    for page, _ in found.values():
        page.context.close()


@pytest.fixture
def opened(pages, report):
    """Picks a page by its size; when the test ends nothing may have been said, gone wrong or been fetched."""
    used = []

    def pick(name):
        used.append(name)
        return pages[name][0]

    yield pick
    for name in used:
        # the empty icon is data inside the page
        assert [words for words in pages[name][1] if words != report and not words.startswith("data:")] == []


def spread_of(path) -> float:
    return float(np.asarray(Image.open(path).convert("L"), dtype=float).std())


def test_the_page_is_drawn_whole(opened, tmp_path):
    page = opened("desktop")
    traces = page.evaluate(
        "Object.fromEntries([...document.querySelectorAll('.js-plotly-plot')].map(plot => [plot.id, plot.data.length]))"
    )
    assert traces[CURVES] == 5 and traces[PANELS] == 5 * 2
    assert traces["run-test-white-full-cost"] == 5 + 1  # and the front
    assert traces["run-test-white-full-deciles"] == 4 + 1  # one method has no variance; and the diagonal
    assert traces["run-test-white-full-map-0"] == 1
    assert len(traces) == page.locator("figure").count() == 4 + 2 + 3 + 1 + 2 + 3
    assert page.locator(f"#{CURVES} .scatterlayer .trace .lines path").count() == 5
    page.screenshot(path=tmp_path / "page.png")
    assert spread_of(tmp_path / "page.png") > 10
    for name in (CURVES, PANELS, "run-test-white-full-map-0"):
        page.locator(f"#{name}").screenshot(path=tmp_path / f"{name}.png")
        assert spread_of(tmp_path / f"{name}.png") > 10, name
    blank = Image.new("L", (100, 100), 255)
    blank.save(tmp_path / "blank.png")
    assert spread_of(tmp_path / "blank.png") == 0


@pytest.mark.parametrize("plot, traces", [(CURVES, 1), (PANELS, 2)])
def test_a_click_on_a_name_hides_its_curve_and_another_brings_it_back(opened, plot, traces):
    page = opened("desktop")
    entry = page.locator(f"#{plot} .legend .traces", has_text="boastful").locator(".legendtoggle")
    lines = page.locator(f"#{plot} .scatterlayer .trace .lines path")
    before = lines.count()
    entry.click()
    hidden = "name => document.getElementById(name).data.filter(t => t.visible === 'legendonly').map(t => t.name)"
    page.wait_for_function(f"name => ({hidden})(name).length > 0", arg=plot)
    assert page.evaluate(hidden, plot) == ["boastful"] * traces and lines.count() == before - traces
    page.wait_for_timeout(400)  # or both clicks are one double click
    entry.click()
    page.wait_for_function(f"name => ({hidden})(name).length === 0", arg=plot)
    assert lines.count() == before
    page.wait_for_timeout(400)
    entry.dblclick()
    page.wait_for_function(f"name => ({hidden})(name).length > {traces}", arg=plot)
    assert set(page.evaluate(hidden, plot)) == {"ls", "best", "silent", "genie"}
    page.wait_for_timeout(400)
    entry.dblclick()
    page.wait_for_function(f"name => ({hidden})(name).length === 0", arg=plot)


def test_paper_gets_open_folds_and_figures_that_fit_and_the_screen_its_own_back(opened, tmp_path):
    page = opened("desktop")
    folds = page.locator("details")
    assert folds.count() > 10 and page.locator("details[open]").count() == 0
    page.evaluate("""() => {
      addEventListener("beforeprint", () => {
        window.printed = {
          open: document.querySelectorAll("details[open]").length,
          widest: Math.max(...[...document.querySelectorAll(".plot")].map(plot => plot._fullLayout.width)),
        };
      });
    }""")
    data = page.pdf(path=tmp_path / "page.pdf", format="A4", prefer_css_page_size=True)
    assert data.startswith(b"%PDF") and len(data) > 50_000
    printed = page.evaluate("window.printed")
    assert printed["open"] == folds.count() and printed["widest"] <= 680  # A4 without its margins is 696 pixels wide
    page.wait_for_function("() => !document.querySelector('details[open]')")
    assert page.evaluate(f"document.getElementById('{CURVES}')._fullLayout.width") < 600
    page.emulate_media(media="print")
    page.wait_for_function(f"() => document.querySelectorAll('details[open]').length === {folds.count()}")
    grounds = page.evaluate("[document.body, ...document.querySelectorAll('section')].map(e => "
                            "getComputedStyle(e).backgroundColor)")  # fmt: skip
    assert set(grounds) == {"rgb(255, 255, 255)"}
    page.emulate_media(media="screen")
    page.wait_for_function("() => !document.querySelector('details[open]')")


def test_a_phone_does_not_scroll_sideways(opened, tmp_path):
    page = opened("phone")
    widths = page.evaluate("[document.documentElement.scrollWidth, document.body.scrollWidth, innerWidth]")
    assert widths == [390, 390, 390]
    over = page.evaluate(
        "[...document.querySelectorAll('.plot')].filter(p => p._fullLayout.width > p.clientWidth + 1).map(p => p.id)"
    )
    assert over == []
    # panels stand below one another
    axes = ["xaxis", "xaxis2", "yaxis", "yaxis2"]
    domains = page.evaluate(
        f"axes => axes.map(axis => document.getElementById('{PANELS}')._fullLayout[axis].domain)", axes
    )
    assert domains[0] == domains[1] == [0, 1] and domains[3][1] < domains[2][0]
    page.screenshot(path=tmp_path / "phone.png")
    assert spread_of(tmp_path / "phone.png") > 10
    page.set_viewport_size(DESKTOP)
    page.wait_for_function(f"() => document.getElementById('{PANELS}')._fullLayout.width > 1000")
    assert page.evaluate(f"document.getElementById('{PANELS}')._fullLayout.xaxis.domain[1]") < 0.5
    page.set_viewport_size(PHONE)
    page.wait_for_function(f"() => document.getElementById('{PANELS}')._fullLayout.width < 400")


@pytest.mark.parametrize("size", ["desktop", "phone"])
def test_legends_cover_neither_curves_nor_titles(opened, size):
    page = opened(size)
    covered = page.evaluate("""() => [...document.querySelectorAll(".js-plotly-plot")].flatMap(plot => {
      const legend = plot.querySelector(".legend .bg");
      if (!legend) return [];
      const low = legend.getBoundingClientRect().bottom;
      return [...plot.querySelectorAll(".cartesianlayer .plotbg, .gridlayer, .annotation-text")].filter(
        each => each.getBoundingClientRect().height && each.getBoundingClientRect().top < low - 4).map(_ => plot.id);
    })""")
    assert covered == []
    wide = page.evaluate("""() => [...document.querySelectorAll(".js-plotly-plot")].filter(plot =>
      [...plot.querySelectorAll(".legendtext, .xtitle, .ytitle, .xtick text, .ytick text")].some(text => {
        const a = text.getBoundingClientRect(), b = plot.getBoundingClientRect();
        return a.left < b.left - 1 || a.right > b.right + 1 || a.bottom > b.bottom + 1;
      })).map(plot => plot.id)""")
    assert wide == []
    crowded = page.evaluate("""() => [...document.querySelectorAll(".js-plotly-plot")].filter(plot => {
      const boxes = [...plot.querySelectorAll(".xtick text, .ytick text")].map(text => text.getBoundingClientRect());
      const beside = (a, b) => a.left > b.right - 1 || a.top > b.bottom - 3;
      const apart = (a, b) => beside(a, b) || beside(b, a);
      return boxes.some((a, i) => boxes.slice(0, i).some(b => a.width && b.width && !apart(a, b)));
    }).map(plot => plot.id)""")
    assert crowded == []


def test_what_is_read_aloud_and_reached_by_keyboard(opened):
    page = opened("desktop")
    assert page.evaluate("document.documentElement.lang") == "en"
    levels = [
        int(tag[1]) for tag in page.evaluate("[...document.querySelectorAll('h1,h2,h3,h4,h5,h6')].map(h => h.tagName)")
    ]
    assert levels[0] == 1 and levels.count(1) == 1 and 3 in levels
    assert all(deeper <= before + 1 for before, deeper in itertools.pairwise(levels))
    for landmark in ("header", "nav", "main", "footer"):
        assert page.locator(landmark).count() == 1, landmark
    silent = "[...document.querySelectorAll('.plot')].filter(p => !(p.getAttribute('aria-label') || '').trim())"
    assert page.evaluate(f"{silent}.length") == 0
    assert page.evaluate("[...document.querySelectorAll('.plot')].every(p => p.getAttribute('role') === 'img')")
    assert page.evaluate(
        "[...document.querySelectorAll('figure')].every(f => f.querySelector('table') && f.querySelector('figcaption'))"
    )
    assert page.evaluate(
        "[...document.querySelectorAll('table')].every(t => t.caption && t.caption.textContent.trim())"
    )
    assert page.evaluate("[...document.querySelectorAll('th')].every(t => ['row', 'col'].includes(t.scope))")
    assert page.evaluate(
        "[...document.querySelectorAll('.wide')].every(w => w.tabIndex === 0 && w.getAttribute('aria-label'))"
    )
    assert page.evaluate("[...document.querySelectorAll('nav a')].every(a => document.querySelector(a.hash))")
    page.reload()
    page.wait_for_selector(DRAWN, state="attached", timeout=20_000)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the results"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.tagName") == "MAIN"
    assert page.evaluate(CONTRAST) == []
