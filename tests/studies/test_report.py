"""The report: what is in the file, what cannot be, and that a browser shows it."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from matplotlib.text import Text
from PIL import Image

from studies.export.report.content import RecordingSummary, RegionSummary, StudyDetails
from studies.export.report.fill import images_of
from studies.export.report.images import map_sheet, photo_sheet
from studies.export.report.page import json_text, study_name, write_report
from tests.figures.conftest import AREAS, ARRAYS, INCEPTION, VGG, study_rows
from tuner.figures.captions import STACKED, Basis
from tuner.figures.heatmap import heatmap
from tuner.figures.trials import TrialCurve

LAYERS = {"lite": ["_blocks.0", "_blocks.2", "_blocks.4"]}
REGIONS = ["V1", "V4", "IT"]
EVIL = (
    "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
)
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)


def details(name: str, units: int = 3, side: int = 16) -> StudyDetails:
    """Return made-up details that differ from study to study, the same each time."""
    rng = np.random.default_rng(sum(map(ord, name)))
    steps = np.arange(45, 901, 45)
    curves = [
        TrialCurve(0, steps, 1 - 0.3 * (1 - np.exp(-steps / 200))),
        TrialCurve(1, steps[:8], np.linspace(1.0, 0.9, 8), "pruned"),
        TrialCurve(2, steps, 1 - 0.5 * (1 - np.exp(-steps / 200))),
        TrialCurve(3, [45, 90], [2.0, np.inf], "pruned"),
    ]
    return StudyDetails(
        curves=curves,
        parameters={"sparsity": 1.5e-5, "drop": 120},
        importance={"sparsity": 0.75, "drop": 0.25},
        importance_note="PED-ANOVA",
        settings={"sparsity": [1e-6, 1e-3, 1.5e-5, 1e-1], "drop": [20, 400, 120, 50]},
        log=["sparsity"],
        seconds=4000.0,
        units=[
            {
                "study": name,
                "unit": unit,
                "name": EVIL if unit == 0 else f"electrode {unit}",
                "test_correlation": 0.5,
                "test_correlation_low": 0.4,
                "test_correlation_high": np.nan,
            }
            for unit in range(units)
        ],
        unit_names=[EVIL, *(f"electrode {unit}" for unit in range(1, units))],
        masks=rng.random((units, 5, 6)),
        images=rng.random((units, side, side, 3)),
        image_notes=["predicted 1.23"] * units,
        image_settings="Fourier prior, seed 0",
        load=f'encoder = tuner.load_encoder("best/{name}")',
        notes=["second validation cut agrees"],
    )


def recording(*, simulated: bool = True, regions: list[str] = REGIONS) -> RecordingSummary:
    return RecordingSummary(
        label=f"lab {EVIL}",
        source="recording.h5",
        simulated=simulated,
        regions=[RegionSummary(region, 12, noise_ceiling=0.876) for region in regions],
        facts={"images": "200 training, 50 test"},
        notes=["one unit was dropped"],
    )


PROVENANCE = {"seed": 0, "versions": {"torch": "2.14"}, "configuration": f"[data]\n# {EVIL}\n"}


def written(folder: Path, rows: list[dict] | None = None, **options) -> Path:
    rows = study_rows(LAYERS, REGIONS) if rows is None else rows
    options.setdefault("details", details)
    options.setdefault("recording", recording())
    found = options.pop("details")
    return write_report(
        rows, found, options.pop("recording"), PROVENANCE, folder / "report.html", **options
    )


class Blocks(HTMLParser):
    """Collects what a browser would see: JSON blocks, tags, addresses."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks: dict[str, str] = {}
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.open: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        values = dict(attrs)
        self.addresses += [str(values[name]) for name in ("src", "href") if name in values]
        self.open = values.get("id") if tag == "script" else None
        if self.open:
            self.blocks[self.open] = ""

    def handle_data(self, data: str) -> None:
        if self.open:
            self.blocks[self.open] += data

    def handle_endtag(self, tag: str) -> None:
        self.open = None


def read(path: Path) -> Blocks:
    parser = Blocks()
    parser.feed(path.read_text(encoding="utf-8"))
    parser.close()
    return parser


def test_every_study_is_in_the_file_with_all_it_has(tmp_path: Path) -> None:
    rows = study_rows(LAYERS, REGIONS)
    asked: list[str] = []

    def tell(name: str) -> StudyDetails:
        asked.append(name)
        return details(name)

    page = read(written(tmp_path, rows, details=tell))
    assert asked == [study_name(row) for row in rows]
    overview = json.loads(page.blocks["overview"])
    assert [row["study"] for row in overview["rows"]] == asked
    assert overview["rows"][4]["test_correlation"] == pytest.approx(
        rows[4]["test_correlation"], rel=1e-3
    )
    study = json.loads(page.blocks["study-4"])
    assert study["curves"]["best"] == 2
    assert study["curves"]["trials"][3]["v"] == [2.0, None]
    assert study["parameters"] == {"sparsity": 1.5e-5, "drop": 120}
    assert study["settings"]["drop"] == [20, 400, 120, 50]
    assert study["importance"] == {"sparsity": 0.75, "drop": 0.25}
    assert study["units"]["columns"][:2] == ["unit", "name"]
    assert study["units"]["values"][1][0] == EVIL
    assert study["load"] == f'encoder = tuner.load_encoder("best/{asked[4]}")'
    assert study["images"]["count"] == study["masks"]["count"] == 3
    assert overview["provenance"]["configuration"] == PROVENANCE["configuration"]


def test_names_cannot_become_markup(tmp_path: Path) -> None:
    rows = study_rows({EVIL: [EVIL]}, [EVIL])
    evil = replace(recording(), label=EVIL)
    page = read(written(tmp_path, rows, recording=evil, groups={EVIL: EVIL}))
    assert page.tags.count("script") == 1 + 1 + len(rows)  # code, overview, studies
    assert "img" not in page.tags
    assert json.loads(page.blocks["overview"])["rows"][0]["layer"] == EVIL


def test_nothing_is_fetched(tmp_path: Path) -> None:
    path = written(tmp_path)
    assert read(path).addresses == ["#maps"]
    text = path.read_text(encoding="utf-8")
    assert set(re.findall(r"https?://[^\s\"'<]+", text)) == {"http://www.w3.org/2000/svg"}
    assert "default-src 'none'" in text


@pytest.mark.parametrize(
    "value", ["a\u2028b\u2029c", "<!--", "]]>", "\ud800", "&amp;", 'q"\\', "\x00"]
)
def test_json_survives_a_script_element(value: str) -> None:
    text = json_text({"v": value})
    assert not set("<>&\u2028\u2029") & set(text)
    text.encode("utf-8")
    if value != "\ud800":  # half a character cannot be written at all
        assert json.loads(text) == {"v": value}


def test_missing_details_and_missing_numbers_are_fine(tmp_path: Path) -> None:
    rows = study_rows(LAYERS, ["V1"], ("full",))
    rows[0] |= {"test_correlation": np.nan, "noise_ceiling": None, "feve": np.float32("nan")}
    some = {study_name(rows[1]): StudyDetails()}
    page = read(written(tmp_path, rows, details=some.get))
    assert set(page.blocks) == {"overview", "study-1"}
    assert json.loads(page.blocks["overview"])["rows"][0].get("feve") is None
    assert json.loads(page.blocks["study-1"])["curves"]["best"] is None


def test_wrong_input_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no studies"):
        written(tmp_path, [])
    assert not list(tmp_path.iterdir())


def test_images_shrink_until_the_file_fits(tmp_path: Path) -> None:
    rows = study_rows(LAYERS, REGIONS)

    coarse = np.random.default_rng(0).random((30, 6, 6, 3))
    images = np.stack([np.kron(one, np.ones((16, 16, 1))) for one in coarse])

    def big(name: str) -> StudyDetails:
        return replace(details(name, units=30), images=images)

    shown, used = {}, {}
    for limit in (400_000, 800_000, 28_000_000):
        path = written(tmp_path, rows, details=big, limit=limit)
        used[limit] = path.stat().st_size
        page = read(path)
        sheets = [json.loads(page.blocks[f"study-{i}"])["images"] for i in range(len(rows))]
        assert all(sheet["count"] == 30 for sheet in sheets)
        shown[limit] = min(sheet["w"] for sheet in sheets)
    assert all(size <= limit for limit, size in used.items())
    assert shown[400_000] < shown[800_000] <= shown[28_000_000] == 96
    assert used[800_000] > 250_000  # the room there is is used


def picture(uri: str) -> np.ndarray:
    content = base64.b64decode(uri.split(",", 1)[1])
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


@pytest.mark.parametrize("count", [1, 5, 12])
def test_sheets_hold_each_picture_where_the_page_looks_for_it(count: int) -> None:
    shades = np.linspace(20, 220, count).astype(np.uint8)
    pictures = np.broadcast_to(shades[:, None, None, None], (count, 20, 30, 3)).copy()
    sheet = photo_sheet(pictures, 100_000)
    assert sheet is not None
    assert (sheet.width, sheet.height, sheet.count) == (30, 20, count)
    found = picture(sheet.uri)
    for index in range(count):
        row, column = divmod(index, sheet.across)
        tile = found[row * 20 : row * 20 + 20, column * 30 : column * 30 + 30]
        assert abs(tile.mean() - shades[index]) < 4
    assert photo_sheet(pictures, 10) is None


def test_maps_keep_their_shape_and_own_scale() -> None:
    maps = np.zeros((3, 4, 6))
    maps[0, 1, 2], maps[1, 3, 5] = 1.0, 1e-6
    sheet = map_sheet(maps, 10_000)
    assert sheet is not None
    found = picture(sheet.uri)
    bright = (253, 231, 37)  # the upper end of viridis
    assert tuple(found[1, 2]) == bright
    row, column = divmod(1, sheet.across)
    assert tuple(found[row * 4 + 3, column * 6 + 5]) == bright
    assert (found == bright).all(axis=-1).sum() == 2
    noisy = map_sheet(np.random.default_rng(0).random((40, 27, 28)), 3_000)
    assert noisy is not None
    assert (noisy.height, noisy.width, noisy.count) == (7, 7, 40)


# In a browser -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    api = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("no Chromium here")
    with api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def visit(browser):
    """Return a function that opens a page; whatever the console complains of fails the test."""
    contexts, complaints = [], []

    def go(path: Path, *, width: int = 1440, height: int = 1000, anchor: str = "", **options):
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda said: complaints.append(said.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "request",
            lambda request: (
                complaints.append(request.url)
                if not request.url.startswith(("file:", "data:"))
                else None
            ),
        )
        page.goto(path.as_uri() + anchor)
        page.wait_for_selector("table.map")
        return page

    yield go
    for context in contexts:
        context.close()
    assert complaints == []


def cell(page, name: str):
    return page.locator(f'button.cell[data-study="{name}"]')


@pytest.mark.browser
def test_a_study_below_its_closed_form_says_so(tmp_path, visit) -> None:
    rows = study_rows(LAYERS, ["V1"], ("full", "smooth"))
    rows[0]["below_smooth"] = True
    page = visit(written(tmp_path, rows))
    said = "higher validation loss than the closed form (smooth) of the same layer and region"
    assert page.locator("button.cell.below").count() == 1
    assert page.locator("#legend").get_by_text(said).count() == 1
    for row, below in ((rows[0], True), (rows[1], False)):
        button = cell(page, study_name(row))
        assert (said in button.get_attribute("aria-label")) is below
        button.click()
        study = page.locator("#study")
        assert study.get_by_text("above that of the closed form").count() == int(below)
        assert "smooth" in study.locator("table").first.inner_text()  # its scores stand beside


@pytest.mark.browser
@pytest.mark.parametrize(("width", "height"), [(1440, 1000), (390, 844)])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_click_on_a_cell_shows_its_study(tmp_path, visit, width, height, scheme) -> None:
    rows = study_rows(LAYERS, REGIONS)
    ridge = study_rows(LAYERS, REGIONS, ("ridge",), seed=1)
    path = written(tmp_path, rows, references=ridge)
    page = visit(path, width=width, height=height, color_scheme=scheme)
    assert page.locator("button.cell").count() == len(rows)  # references have none
    wanted = rows[4]
    button = cell(page, study_name(wanted))
    assert button.inner_text() == f"{wanted['test_correlation']:.2f}"[1:]
    button.click()
    study = page.locator("#study")
    assert (
        study.locator("h2").inner_text()
        == "lite \N{MIDDLE DOT} _blocks.2 \N{MIDDLE DOT} V4 \N{MIDDLE DOT} full"
    )
    assert study.get_by_text("simulated recording", exact=True).count() == 1
    scores = study.locator("table").first.inner_text()
    assert f"{wanted['test_correlation']:.3f}"[1:] in scores.split()
    assert f"{wanted['noise_ceiling']:.3f}"[1:] in scores
    assert f"{ridge[4]['test_correlation']:.3f}"[1:] in scores
    assert study.locator("svg.curve path[data-trial]").count() == 4
    assert study.locator("svg.curve path.chosen").get_attribute("data-trial") == "2"
    assert "1.50e-5" in study.inner_text()
    # three of four trials are on the slices' axes: one diverged
    assert study.locator(".slices svg").count() == 2
    for slice_ in study.locator(".slices svg").all():
        assert slice_.locator("circle.point").count() == 3
        assert slice_.locator("circle.ring").count() == 1
    assert "1 above the axis" in study.inner_text()
    assert study.locator(".importance").inner_text().split() == ["sparsity", "0.75", "drop", "0.25"]
    page.wait_for_selector(".images[data-drawn]")
    page.wait_for_selector(".masks[data-drawn]")
    assert study.locator(".images canvas").count() == 3
    assert study.locator(".masks canvas").count() == 3
    drawn = "c => new Set(c.getContext('2d').getImageData(0, 0, c.width, c.height).data).size"
    for kind in (".images", ".masks"):
        assert study.locator(f"{kind} canvas").nth(2).evaluate(drawn) > 10
    assert study_name(wanted) in study.locator("pre.load").inner_text()
    # nothing is wider than the screen, and the study is in sight
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert study.locator("h2").evaluate("e => e.getBoundingClientRect().top") < height
    # names from the recording are text
    assert EVIL in study.locator(".images figcaption").first.inner_text()
    assert page.title().startswith("Which layer")
    study.get_by_role("button", name="Close").click()
    assert study.is_hidden()


@pytest.mark.browser
@pytest.mark.parametrize("width", [1300, 420])
def test_scores_beside_references_are_neither_cut_nor_scrolled(tmp_path, visit, width) -> None:
    limits = {"test_correlation_low": 0.512, "test_correlation_high": 0.634}
    rows = [row | limits for row in study_rows(LAYERS, REGIONS, ("full",))]
    beside = [
        row | limits
        for row in study_rows(LAYERS, REGIONS, ("ridge", "located", "ridge (random weights)"))
    ]
    page = visit(written(tmp_path, rows, references=beside), width=width)
    cell(page, study_name(rows[4])).click()
    table = page.locator("#study .scores")
    assert "[.512, .634]" in " ".join(table.inner_text().split())
    assert table.evaluate("node => node.scrollWidth - node.clientWidth") <= 0
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.browser
def test_unit_scores_show_intervals_and_open_limits(tmp_path, visit) -> None:
    rows = study_rows(LAYERS, REGIONS)
    page = visit(written(tmp_path, rows), anchor=f"#{study_name(rows[0])}")  # a link to a study
    page.locator("#study details summary").click()
    text = page.locator("#study details table").inner_text()
    assert ".500 [.400, \N{EN DASH}]" in text
    assert "test correlation low" not in text
    assert EVIL in text


@pytest.mark.browser
def test_by_keyboard_alone(tmp_path, visit) -> None:
    rows = study_rows(LAYERS, REGIONS, ("full",))
    page = visit(written(tmp_path, rows))
    first = cell(page, study_name(rows[0]))
    for _ in range(10):
        page.keyboard.press("Tab")
        if first.evaluate("e => e === document.activeElement"):
            break
    for key in ("ArrowRight", "ArrowDown", "ArrowDown", "ArrowLeft", "ArrowLeft", "End"):
        page.keyboard.press(key)
    focused = page.evaluate("document.activeElement.dataset.study")
    assert focused == "lite/_blocks.4/IT/full"
    page.keyboard.press("Enter")
    assert page.locator("#study h2").is_visible()
    assert cell(page, focused).get_attribute("aria-pressed") == "true"
    page.keyboard.press("Escape")
    assert page.locator("#study").is_hidden()
    assert page.evaluate("document.activeElement.dataset.study") == focused


@pytest.mark.parametrize("loss", ["mse", "poisson"])
def test_losses_of_two_kinds_are_not_shown_under_one_name(tmp_path: Path, loss: str) -> None:
    """Ridge's squared error is not held against the Poisson loss of searches; its correlation is."""
    rows = study_rows(LAYERS, REGIONS, ("full",))
    low = [row | {"readout": "ridge", "validation_loss": 0.05} for row in rows]
    path = written(tmp_path, rows, references=low, basis=Basis(loss=loss))
    overview = json.loads(read(path).blocks["overview"])
    beside = [row for row in overview["rows"] if row["readout"] == "ridge"]
    of_loss = next(m for m in overview["metrics"] if m["name"] == "validation_loss")
    same = loss == "mse"
    assert ["validation_loss" in row for row in beside] == [same] * len(rows)
    assert all("validation_correlation" in row and "pending" not in row for row in beside)
    assert ("no validation loss of ridge" in of_loss["beside"]) == (not same)
    assert ("no validation loss of ridge" in overview["no_loss"]) == (not same)
    assert (of_loss["limits"][0] < 0.1) == same  # the scale is of what is shown
    others = [m["beside"] for m in overview["metrics"] if m is not of_loss]
    assert others
    assert not any("no validation loss" in said for said in others)


@pytest.mark.browser
def test_a_study_says_why_a_reference_has_no_loss(tmp_path, visit) -> None:
    rows = study_rows(LAYERS, REGIONS, ("full",))
    ridge = [row | {"readout": "ridge"} for row in rows]
    page = visit(written(tmp_path, rows, references=ridge, basis=Basis(loss="poisson")))
    cell(page, study_name(rows[0])).click()
    assert "No validation loss of ridge: squared error" in page.locator("#study").inner_text()
    line = page.locator("#study .scores tr", has_text="validation loss")
    assert line.locator("td").last.inner_text().strip() in ("", "\N{EN DASH}")
    page.locator("#metric").select_option("validation_loss")
    panel = page.locator(".panel", has_text="ridge").first
    assert "." not in "".join(panel.locator(".cell").all_inner_texts())


@pytest.mark.browser
def test_scores_failures_and_best_layers_are_marked(tmp_path, visit) -> None:
    rows = study_rows(LAYERS, REGIONS, ("full",))
    rows[0]["fit_failed"] = True
    rows[1] |= {"validation_loss": None, "test_correlation": None, "n_trials": 0}
    page = visit(written(tmp_path, rows))
    failed = cell(page, study_name(rows[0]))
    assert "failed" in failed.get_attribute("class")
    assert failed.inner_text() == f"{rows[0]['test_correlation']:.2f}".lstrip("0")
    assert failed.evaluate("node => node.style.background") == ""  # a score without a colour
    said = "not surely better than predicting the mean"
    assert said in failed.get_attribute("aria-label")
    assert said in page.locator("#legend").inner_text()
    assert "none" in cell(page, study_name(rows[1])).get_attribute("class")
    best = page.locator("button.cell.best")
    assert best.count() == 3
    page.locator("#metric").select_option("validation_loss")
    other = cell(page, study_name(rows[5]))
    assert other.inner_text() == f"{rows[5]['validation_loss']:.2f}".lstrip("0")
    assert "validation, selected on, optimistic" in page.locator("#caveat").inner_text()
    page.locator("#metric").select_option("test_correlation")
    assert "optimistic" not in page.locator("#caveat").inner_text()
    assert "mean over the units with a ceiling: V1 28 of 30" in page.locator("#caveat").inner_text()


@pytest.mark.browser
def test_the_page_rounds_as_the_heatmap_and_has_a_ceiling_where_it_has_one(tmp_path, visit) -> None:
    """Rounded to four digits first, .965047 is .965 and then .96."""
    rows = study_rows(LAYERS, ["V4"], ("full",))
    for row, score in zip(rows, (0.8350002, 0.96504, -0.1149999), strict=True):
        row |= {"test_correlation": score, "noise_ceiling": 0.965047}
    drawn = {text.get_text() for text in heatmap(rows).findobj(Text)}
    page = visit(written(tmp_path, rows))
    shown = [cell(page, study_name(row)).inner_text() for row in rows]
    assert shown == [".84", ".97", "\N{MINUS SIGN}.11"]
    assert page.locator("tfoot i").all_inner_texts() == [".97"]
    assert {*shown, "ceiling"} <= drawn
    for metric in ("feve", "test_correlation_normalized", "validation_loss"):
        page.locator("#metric").select_option(metric)
        assert page.locator("tfoot").count() == 0
        assert "CCmax" not in page.locator("#legend").inner_text()
        assert "ceiling" not in {t.get_text() for t in heatmap(rows, metric=metric).findobj(Text)}


@pytest.mark.browser
def test_all_studies_together_and_how_sure_the_choice_is_are_said(tmp_path, visit) -> None:
    rows = study_rows(LAYERS, ["V1", "V4"], ("full",))
    stack = rows[0] | {"layer": STACKED, "readout": STACKED, "test_correlation": 0.777}
    said = ["V1: a is surely the best", f"sure of 1 of 3 {EVIL}"]
    page = visit(written(tmp_path, [*rows, stack], sure=said))
    assert page.locator("#sure li").all_inner_texts() == said
    panel = page.locator(".panel").nth(1)
    assert panel.locator("h3").inner_text().endswith(STACKED)
    assert panel.locator("tbody th").all_inner_texts() == [
        STACKED
    ]  # and no rows that nothing stands in
    assert panel.locator(".cell").all_inner_texts() == [".78"]
    assert panel.locator("button").count() == 0  # it is no study, and has no page of its own
    assert page.locator(".panel").nth(0).locator("tbody th").all_inner_texts() == LAYERS["lite"]


@pytest.mark.browser
def test_without_test_images_the_page_says_what_it_is_worth(tmp_path, visit) -> None:
    rows = study_rows(LAYERS, REGIONS, test=False)
    page = visit(written(tmp_path, rows, recording=recording(simulated=False)))
    assert "validation, selected on, optimistic" in page.locator("#caveat").inner_text()
    assert "ceiling" not in page.locator("#maps").inner_text()
    assert "simulated" not in page.locator("body").inner_text()


@pytest.mark.browser
def test_full_size_opens_quickly_and_prints(tmp_path, visit) -> None:
    rows = study_rows({"vgg19": VGG, "inceptionv1": INCEPTION}, ARRAYS, failing=0.03)
    ridge = study_rows({"vgg19": VGG, "inceptionv1": INCEPTION}, ARRAYS, ("ridge",))
    ready = details("one for all", units=20, side=24)
    path = written(
        tmp_path, rows, details=lambda _: ready, references=ridge, groups=AREAS, limit=28_000_000
    )
    assert 5_000_000 < path.stat().st_size < 28_000_000
    started = time.monotonic()
    page = visit(path)
    assert page.locator("button.cell").count() == 840
    assert time.monotonic() - started < 5  # well under 2 s on a machine with nothing else to do
    cell(page, study_name(rows[800])).click()
    page.wait_for_selector(".images[data-drawn]")
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    pdf = page.pdf(format="A4", landscape=True)
    assert pdf.startswith(b"%PDF")


def test_images_of_some_units_are_in_it(tmp_path: Path) -> None:
    """``export mei --units 3,0``: of two of three units, in the study's order, and it says of how many."""
    units = [{"unit": unit, "name": f"electrode {unit}"} for unit in (0, 3, 5)]
    one: Any = SimpleNamespace(spec=SimpleNamespace(units=np.array([0, 3, 5])), units=units)
    assert images_of(tmp_path, one) == (None, [], [], "")
    images = np.stack([np.full((4, 4, 3), value) for value in (0.3, 0.0)])
    np.savez(tmp_path / "meis.npz", units=[3, 0], images=images, activation=[2.5, 1.0])
    pictures, names, notes, how = images_of(tmp_path, one)
    assert pictures[:, 0, 0, 0].tolist() == [0.0, 0.3]
    assert names == ["electrode 0", "electrode 3"]
    assert notes == ["predicted 1", "predicted 2.5"]
    assert "of 2 of 3 units" in how
