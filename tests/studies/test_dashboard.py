"""The dashboard in a browser: the list of studies, and a study with its curve and its files."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cli.main import main
from tests.soak.zygote import Zygote
from tests.studies.conftest import MakeExperiment
from tests.studies.server import free_port

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed"),
]

GRID = {
    "backbone": [{"name": "efficientnet_lite0", "alias": "net", "layers": ["_blocks.2"]}],
}


@pytest.fixture
def board(make_experiment: MakeExperiment, tmp_path: Path) -> Iterator[str]:
    """A searched experiment's dashboard; its address."""
    config = make_experiment(GRID)
    assert main(["study", "create", "-q", "-c", str(config)]) == 0
    assert main(["optimize", "-q", "--n-trials", "8", "-c", str(config)]) == 0
    port = free_port()
    with Zygote() as zygote:
        child = zygote.start(["dashboard", "--port", port, "-c", config], tmp_path / "log")
        assert child.until("dashboard on")
        assert "CREATE and the bins are refused" in child.text()
        yield f"http://127.0.0.1:{port}"
        child.kill(2)
        assert child.wait() == 130


@pytest.fixture
def page() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"],
        )
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.set_default_timeout(60_000)
        yield page
        browser.close()


def keep(page: Any, name: str) -> None:
    """Leave a screenshot where somebody asked for them."""
    folder = os.environ.get("TUNER_SCREENSHOTS")
    if folder:
        page.screenshot(path=str(Path(folder) / f"{name}.png"))


def test_the_list_and_a_study_with_its_curve_and_files(board: str, page: Any) -> None:
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    for _ in range(100):
        try:
            page.goto(f"{board}/dashboard")
            break
        except playwright.Error:
            page.wait_for_timeout(100)
    page.get_by_text("net/_blocks.2/V1/full").first.wait_for()
    for name in ("V1/factorized", "IT/full", "IT/factorized"):
        assert page.get_by_text(f"net/_blocks.2/{name}").count() >= 1
    keep(page, "list")

    page.get_by_text("net/_blocks.2/V1/full").first.click()
    page.locator(".main-svg").first.wait_for(state="attached")
    page.wait_for_timeout(1500)
    keep(page, "study")
    # what the value is called, and what is said of the study
    assert page.get_by_text("validation loss").count() >= 1
    assert page.get_by_text("Objective 0").count() == 0
    page.goto(f"{board}/dashboard/studies/1/note")
    page.get_by_text("mean over units").first.wait_for()
    assert page.get_by_text("results/report.html#net/_blocks.2/V1/full").count() >= 1
    keep(page, "note")

    page.goto(f"{board}/dashboard/studies/1/trials")
    page.get_by_text("Trial 0").first.wait_for()
    keep(page, "trials")
    shown = page.evaluate(
        "() => fetch('/api/studies/1').then(r => r.json()).then(s => s.best_trials[0].number)"
    )
    page.goto(f"{board}/dashboard/studies/1/trials?numbers={shown}")
    page.get_by_text("learning-curve.png").first.wait_for()
    assert page.get_by_text("weight-map.png").count() >= 1
    assert page.get_by_text("weights.safetensors").count() >= 1
    images = page.locator("img[src*='artifacts']")
    images.first.scroll_into_view_if_needed()
    page.wait_for_timeout(1000)
    widths = images.evaluate_all("all => all.map(one => one.naturalWidth)")
    assert len(widths) >= 2
    assert all(width > 100 for width in widths)
    keep(page, "best")
    assert errors == []
