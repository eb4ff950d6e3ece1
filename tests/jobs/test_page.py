"""The report's page in a real browser without a network: all is there and nothing is loaded."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By

from jobs import page, record, report
from jobs.metrics import Progress
from jobs.rundir import RunDirectory, seconds_of
from jobs.status import Status
from tests.browser import go_offline, requests
from tests.jobs.past_runs import CLASSES, attempt, png, write_run

NOW = seconds_of("2026-01-01T10:00:00Z")
HOSTILE = "<script>document.title='owned'</script><img src='http://127.0.0.1:9/x'>\"'&amp;"


def write_page(folder: Path, *runs: RunDirectory) -> Path:
    told = [Status(run, "finished", 1, Progress(), "") for run in runs]
    path = folder / "a report.html"
    path.write_text(report.render([record.gather(each, NOW) for each in told], "html", NOW))
    return path


def opened(browser: Chrome, path: Path) -> None:
    """The page as somebody opens it who has no network, and nothing asked for but the page."""
    go_offline(browser)
    requests(browser)
    browser.get(path.as_uri())

    assert requests(browser) == [path.as_uri()]
    assert browser.get_log("browser") == []


def texts(browser: Chrome, selector: str) -> list[str]:
    return [each.text for each in browser.find_elements(By.CSS_SELECTOR, selector)]


def test_a_request_that_a_page_makes_is_seen(browser: Chrome, tmp_path: Path) -> None:
    """Without this the empty lists of the other tests would prove nothing."""
    naughty = tmp_path / "naughty.html"
    image = "<img src='http://127.0.0.1:9/x.png'>"
    naughty.write_text(image)
    go_offline(browser)
    requests(browser)
    browser.get(naughty.as_uri())
    assert requests(browser) == [naughty.as_uri(), "http://127.0.0.1:9/x.png"]

    policy = f'<meta http-equiv="Content-Security-Policy" content="{page.POLICY}">'
    naughty.write_text(f"{policy}{image}<script>document.title = 'owned'</script>")
    browser.get(naughty.as_uri())
    assert browser.title != "owned"
    assert "Content Security Policy" in str(browser.get_log("browser"))


def test_the_numbers_and_pictures_of_a_run_are_on_its_page(browser: Chrome, tmp_path: Path) -> None:
    run = write_run(tmp_path, "stamp", scores=(91.23456789, 90.123456789))
    results = json.loads(run.results.read_text())
    opened(browser, write_page(tmp_path, run))

    exact = browser.find_elements(By.CSS_SELECTOR, ".figures data")
    written = {float(each.get_attribute("value") or "nan"): each.text for each in exact}
    assert written[results["accuracy_top-1"]] == "90.12 %"
    assert written[results["best"]["accuracy_top-1"]] == "91.23 %"
    assert written[results["accuracy_top-5"]] == "95.06 %"
    assert written[results["images_per_second"]] == "8,123"

    rows = browser.find_elements(By.CSS_SELECTOR, ".confusion tbody tr")
    cells = [row.find_elements(By.TAG_NAME, "td") for row in rows]
    assert [[int(cell.text) for cell in row] for row in cells] == results["confusion_matrix"]
    assert [row.find_element(By.TAG_NAME, "th").text for row in rows] == CLASSES
    per_class = browser.find_elements(By.CSS_SELECTOR, ".side table:not(.confusion) data")
    assert [float(each.get_attribute("value") or "nan") for each in per_class] == [
        100 * row[place] / sum(row) for place, row in enumerate(results["confusion_matrix"])
    ]

    images = browser.find_elements(By.TAG_NAME, "img")
    sizes = [browser.execute_script("return arguments[0].naturalWidth", each) for each in images]
    assert sizes == [32] * 5
    assert images[0].get_attribute("alt") == "test image 10: airplane, taken for automobile"
    assert texts(browser, ".mistakes figcaption")[1] == "automobile taken for bird, 94.0 %"
    assert len(browser.find_elements(By.CSS_SELECTOR, ".chart > svg")) == 4
    assert "label_smoothing" in browser.find_element(By.TAG_NAME, "pre").text
    assert "0123456789abcdef" in texts(browser, ".words code")


def test_runs_are_compared_and_their_curves_laid_over_each_other(
    browser: Chrome, tmp_path: Path
) -> None:
    runs = [
        write_run(tmp_path, f"2026010{number}-000000-abcd", changes, scores=(10.0 * number, score))
        for number, changes, score in (
            (1, {"run.seed": 1}, 90.0),
            (2, {"run.seed": 2}, 91.0),
            (3, {"optimizer.lr": 0.5}, 70.0),
        )
    ]
    path = write_page(tmp_path, *runs)
    opened(browser, path)

    over_seeds, scores, _ = browser.find_elements(By.CSS_SELECTOR, "table.comparison")
    assert "90.50 ± 0.71" in over_seeds.text
    assert [each.text for each in scores.find_elements(By.CSS_SELECTOR, "thead th")][:5] == [
        "run", "state", "run.seed", "optimizer.lr", "GPUs",
    ]  # fmt: skip
    figures = browser.find_elements(By.CSS_SELECTOR, "main > div > .chart")
    lines = [figure.find_elements(By.CSS_SELECTOR, "path.curve") for figure in figures]
    assert [len(each) for each in lines] == [3, 3, 3, 3]
    assert texts(browser, "main > div > .chart:first-child .legend li") == [
        "optimizer.lr=0.0025 (2 runs)",
        "optimizer.lr=0.5 0.5547",
    ]

    details = browser.find_elements(By.TAG_NAME, "details")
    assert [each.get_attribute("open") for each in details] == [None, None, None]
    scores.find_elements(By.TAG_NAME, "a")[1].click()
    assert [each.get_attribute("open") for each in details] == [None, "true", None]
    assert requests(browser) == []


def test_runs_of_one_group_are_told_apart_by_their_seeds(browser: Chrome, tmp_path: Path) -> None:
    runs = [write_run(tmp_path, f"r{seed}", {"run.seed": seed}) for seed in (3, 5)]
    opened(browser, write_page(tmp_path, *runs))

    labels = texts(browser, "main > div > .chart:first-child .legend li")
    assert [label.rpartition(" ")[0] for label in labels] == ["run.seed=3 (r3)", "run.seed=5 (r5)"]


def test_no_text_of_a_run_becomes_markup(browser: Chrome, tmp_path: Path) -> None:
    entry = attempt(reason=HOSTILE, job_id=HOSTILE, nodes=[HOSTILE])
    run = write_run(
        tmp_path, f"stamp{HOSTILE.replace('/', '')}", {"run.notes": HOSTILE}, attempts=[entry]
    )
    results = json.loads(run.results.read_text())
    classes = [HOSTILE, *CLASSES[1:]]
    run.results.write_text(json.dumps(results | {"classes": classes, "device": HOSTILE}))
    mistake = {"index": HOSTILE, "true": HOSTILE, "predicted": HOSTILE, "png": HOSTILE}
    run.mistakes.write_text(json.dumps({"mistakes": [mistake, mistake | {"png": png(1)}]}))
    told = json.loads(run.provenance.read_text())
    versions = {HOSTILE: HOSTILE}
    run.provenance.write_text(
        json.dumps(told | {HOSTILE: HOSTILE, "command": HOSTILE, "versions": versions})
    )
    other = write_run(tmp_path, "other", {"data.root": HOSTILE})
    path = write_page(tmp_path, run, other)
    opened(browser, path)

    assert browser.title == "2 runs compared"
    assert browser.find_elements(By.TAG_NAME, "script") == []
    sources = [each.get_attribute("src") for each in browser.find_elements(By.TAG_NAME, "img")]
    assert all(source and source.startswith("data:image/png;base64,") for source in sources)
    assert HOSTILE in browser.find_element(By.TAG_NAME, "body").get_attribute("textContent")
    browser.execute_script(
        "for (const each of document.querySelectorAll('details')) each.open = true"
    )
    assert HOSTILE in texts(browser, ".confusion tbody th")[0]


@pytest.mark.parametrize("width", [380, 1280])
def test_the_page_suits_every_screen_and_reader(
    browser: Chrome, tmp_path: Path, width: int
) -> None:
    """It never scrolls sideways as a whole, is dark where the system is, and names its parts."""
    runs = [
        write_run(tmp_path, name, {"optimizer.lr": lr}) for name, lr in (("a", 1.0), ("b", 2.0))
    ]
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False},
    )
    opened(browser, write_page(tmp_path, *runs))
    browser.execute_script(
        "for (const each of document.querySelectorAll('details')) each.open = true"
    )

    def paper(scheme: str) -> str:
        feature = {"name": "prefers-color-scheme", "value": scheme}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        body = browser.find_element(By.TAG_NAME, "body")
        return body.value_of_css_property("background-color")

    page_width = "return document.documentElement.scrollWidth"
    assert browser.execute_script(page_width) <= width
    assert paper("light") == "rgba(255, 255, 255, 1)"
    assert paper("dark") == "rgba(20, 23, 26, 1)"
    unnamed = "th:not([scope]), img:not([alt]), svg:not([aria-label]):not([aria-hidden])"
    unnamed += ", table:not(:has(caption)), html:not([lang])"
    assert browser.find_elements(By.CSS_SELECTOR, unnamed) == []


def test_the_pictures_are_those_of_the_run(tmp_path: Path) -> None:
    run = write_run(tmp_path, "stamp")
    text = write_page(tmp_path, run).read_text()

    for each in json.loads(run.mistakes.read_text())["mistakes"]:
        assert base64.b64decode(each["png"]).startswith(b"\x89PNG")
        assert f'src="data:image/png;base64,{each["png"]}"' in text
