"""The page as people use it, in a browser: sorts, filters, opens, hides, and asks nobody for anything."""

import shutil

import pytest

from lorafusion.report import compare
from lorafusion.report.find import find
from tests.report import made_up

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402

DRIVER = shutil.which("chromedriver")
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(not (DRIVER and BROWSER), reason="no chromium with chromedriver on PATH")
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1280,900")


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    made_up.sweep(folder / "runs")
    compare.write(compare.read(find([str(folder / "runs")])), folder)
    return (folder / "report.html").as_uri()


@pytest.fixture(scope="module")
def browser():
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for flag in FLAGS:
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def page(browser, address):
    browser.get(address)
    browser.execute_script("localStorage.clear()")
    browser.refresh()
    yield browser
    assert browser.get_log("browser") == []  # errors, warnings, and what the policy forbade
    assert browser.execute_script("return performance.getEntriesByType('resource').map(e => e.name)") == []


def click(page, selector):
    page.execute_script("arguments[0].click()", page.find_element(By.CSS_SELECTOR, selector))


def column(page, key):
    return page.execute_script(
        "return [...document.querySelectorAll(`tbody tr.group [data-key='${arguments[0]}']`)]"
        ".filter(e => e.offsetParent).map(e => e.innerText.replace('(best)', '').trim())",
        key,
    )


def shown(page, selector):
    return page.execute_script(
        "return [...document.querySelectorAll(arguments[0])].filter(e => e.getClientRects().length).length", selector
    )


def sort_of(page, key):
    return page.find_element(By.CSS_SELECTOR, f"th[data-key={key}]").get_attribute("aria-sort")


def test_sorts_numbers_as_numbers_both_ways(page):
    click(page, "th[data-key=parameters] button")
    rising = [int(text.replace(",", "")) for text in column(page, "parameters")]
    assert rising == sorted(rising)
    assert sort_of(page, "parameters") == "ascending"
    click(page, "th[data-key=classifier_frechet_distance] button")
    click(page, "th[data-key=classifier_frechet_distance] button")
    falling = [float(text) for text in column(page, "classifier_frechet_distance")]
    assert falling == sorted(falling, reverse=True)
    assert (sort_of(page, "parameters"), sort_of(page, "classifier_frechet_distance")) == ("none", "descending")


def test_sorts_words_from_the_keyboard(page):
    page.find_element(By.CSS_SELECTOR, "th[data-key=attn] button").send_keys(Keys.ENTER)
    words = column(page, "attn")
    assert words == sorted(words)
    assert page.execute_script("return document.activeElement.closest('th').dataset.key") == "attn"


def test_what_has_no_value_is_last_either_way(page):
    page.execute_script("delete document.querySelector('.runs tr.group [data-key=recognised]').dataset.sort")
    for _ in range(2):
        click(page, "th[data-key=recognised] button")
        assert page.execute_script("return [...document.querySelectorAll('.runs tbody')].at(-1).dataset.group") == "0"


def test_filters_by_text_everywhere(page):
    page.find_element(By.ID, "search").send_keys("shift lora")
    assert column(page, "attn") == ["time_lora", "uc_lora"]
    assert shown(page, "figure.samples") == 2
    assert shown(page, "#each details.each") == 4
    assert page.find_element(By.ID, "count").text == "2 of 8"
    page.find_element(By.ID, "search").send_keys(" nothing")
    assert column(page, "attn") == []


def test_filters_by_facets_together(page):
    for selector in ("[data-facet=conv] [data-value=none]", "[data-facet=attn] [data-value=time_lora]"):
        click(page, selector)
    assert column(page, "attn") == ["time_lora"]
    click(page, "[data-facet=attn] [data-value=ada_ln]")
    assert column(page, "attn") == ["ada_ln", "time_lora"]
    click(page, "[data-facet=state] [data-value=failed]")
    assert column(page, "attn") == ["time_lora"]
    for button in page.find_elements(By.CSS_SELECTOR, ".filters [aria-pressed=true]"):
        page.execute_script("arguments[0].click()", button)
    assert len(column(page, "attn")) == 8


def test_seeds_open_below_their_group(page):
    assert shown(page, "tr.run") == 0
    click(page, "tbody:nth-of-type(3) button.open")
    assert shown(page, "tr.run") == 2
    assert (
        page.find_element(By.CSS_SELECTOR, "tbody:nth-of-type(3) button.open").get_attribute("aria-expanded") == "true"
    )
    click(page, "#open-all")
    assert shown(page, "tr.run") == 16
    click(page, "#open-all")
    assert shown(page, "tr.run") == 0


def test_a_run_opens_from_the_table(page):
    click(page, "#open-all")
    click(page, "tr.run a[href='#run-5']")
    assert page.execute_script("return document.getElementById('run-5').open")
    assert "loss is not finite" in page.find_element(By.ID, "run-5").text


def test_the_legend_takes_lines_out(page):
    lines = len(page.find_elements(By.CSS_SELECTOR, ".curve path.line"))
    before = shown(page, ".curve path.line")
    assert before == lines > 16
    button = page.find_element(By.CSS_SELECTOR, "[data-legend='0']")
    page.execute_script("arguments[0].click()", button)
    assert button.get_attribute("aria-pressed") == "false"
    assert shown(page, ".curve [data-group='0'] path.line") == 0
    assert shown(page, ".curve path.line") == before - shown(page, ".curve svg")
    page.execute_script("arguments[0].click()", button)
    assert shown(page, ".curve path.line") == before


def test_the_values_at_the_pointer(page):
    chart = page.find_element(By.CSS_SELECTOR, ".curve svg")
    page.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", chart)
    ActionChains(page).move_to_element(chart).perform()
    tip = page.find_element(By.ID, "tip")
    assert tip.is_displayed()
    assert "images" in tip.text
    assert len(tip.find_elements(By.TAG_NAME, "tr")) == 8
    ActionChains(page).move_to_element(page.find_element(By.TAG_NAME, "nav")).perform()
    assert not tip.is_displayed()


def test_light_and_dark(page):
    def back():
        return page.execute_script("return getComputedStyle(document.body).backgroundColor")

    seen = {}
    for scheme in ("light", "dark"):
        page.execute_cdp_cmd(
            "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        )
        seen[scheme] = back()
    assert seen["light"] != seen["dark"]
    click(page, "#theme")
    assert back() == seen["light"]
    page.refresh()
    assert back() == seen["light"]  # it is kept
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_no_width_scrolls_sideways(page, width):
    page.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 700},
    )
    click(page, "#open-all")
    for details in page.find_elements(By.TAG_NAME, "details"):
        page.execute_script("arguments[0].open = true", details)
    assert page.execute_script("return document.documentElement.scrollWidth") <= width
    assert column(page, "conv")[-1] == ("shift + uc_lora" if width <= 640 else "shift")
    page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_everything_is_there_without_scripts(page, address):
    page.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    page.get(address)
    page.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})  # for this test's own
    assert shown(page, "tr.run") == 16
    assert shown(page, ".curve svg") == 4
    assert shown(page, "figure.samples img") == 8
    assert shown(page, "#search, #theme, #open-all, button.open") == 0
