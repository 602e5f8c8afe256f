"""The page "press Forget" in a real Chromium, without a screen, driven by Selenium.

On Debian and Ubuntu: `apt-get install chromium chromium-driver`. Without them these tests are skipped.
"""

import json
import os
import shutil
import socket
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from selenium import webdriver
from selenium.common.exceptions import TimeoutException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait

from lmeraser_kit.lab.__main__ import voila
from lmeraser_kit.lab.models import new_model
from lmeraser_kit.lab.references import References, split_and_backbone

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "press_forget.ipynb"
CHROMIUM, DRIVER = (shutil.which(name) for name in ("chromium", "chromedriver"))
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="no chromium: apt-get install chromium chromium-driver"
)
PATIENCE = 60  # seconds


@contextmanager
def served(folder, **options):
    """The page's notebook with small parameters, served by Voila: its address, its process, and where its data are."""
    text = NOTEBOOK.read_text().replace("backbone_epochs: int = 30", "backbone_epochs: int = 2")
    (folder / NOTEBOOK.name).write_text(text.replace("n_models: int = 64", "n_models: int = 8"))
    assert json.loads((folder / NOTEBOOK.name).read_text()) != json.loads(NOTEBOOK.read_text())
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    command = [*voila(folder / NOTEBOOK.name, port, **options), "--no-browser"]
    process = subprocess.Popen(command, env=os.environ | {"LMERASER_DATA": str(folder)}, stderr=subprocess.DEVNULL)
    try:
        WebDriverWait(port, PATIENCE).until(lambda p: not socket.socket().connect_ex(("localhost", p)))
        yield f"http://localhost:{port}", process, folder
    finally:
        process.terminate()
        process.wait()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with served(tmp_path_factory.mktemp("page")) as parts:
        yield parts


def kernels(server):
    children = psutil.Process(server[1].pid).children()
    return {child.pid for child in children if "ipykernel_launcher" in " ".join(child.cmdline())}


class Window:
    """A browser window, its controls found by what a screen reader calls them."""

    def __init__(self, address, width=1280, height=720):
        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM
        for argument in ("--headless", "--no-sandbox", "--disable-dev-shm-usage"):
            options.add_argument(argument)
        self.driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False},
        )
        self.driver.get(address)
        self.wait(lambda: "689 of 689" in self.status)

    def wait(self, until, patience=PATIENCE):
        waiting = WebDriverWait(self.driver, patience, ignored_exceptions=[Exception])
        try:
            return waiting.until(lambda _: until())
        except TimeoutException:
            raise AssertionError(self.driver.find_element(By.TAG_NAME, "body").text) from None

    @property
    def status(self):
        return self.driver.find_element(By.CSS_SELECTOR, ".lmk-status").text

    def controls(self, kind="button, select, input"):
        found = self.driver.find_elements(By.CSS_SELECTOR, ", ".join(f".lmk {part}" for part in kind.split(", ")))
        return [control for control in found if control.is_displayed()]

    def control(self, name, kind="button, select, input"):
        return next(c for c in self.controls(kind) if c.accessible_name.strip().startswith(name))

    def press(self, name):
        self.wait(lambda: self.control(name, "button").click() or True)

    def look(self, script):
        return self.driver.execute_script(script)

    def says(self, text):
        self.wait(lambda: text in self.status)

    def shows(self, text):
        self.wait(lambda: text in self.driver.find_element(By.CSS_SELECTOR, ".lmk").text)

    def forget(self, guess):
        self.press("2 Forget")
        field = self.wait(lambda: self.control("How many images", "input"))
        field.send_keys(guess, Keys.TAB)
        self.press("Forget")


@pytest.fixture
def window(server):
    opened = Window(server[0])
    yield opened
    opened.driver.quit()


def test_a_whole_forget_has_the_hash_of_the_package(server, window):
    window.press("Image 5,")
    window.shows("Image 5: a")
    window.press("Choose this image")
    window.says("1 chosen")
    window.forget("many")
    window.says("The guess is “many”, expected a whole number from 0 to 689")
    window.control("How many images", "input").clear()
    window.forget("70")
    window.says("Forgotten in")
    window.press("Fit without them")
    window.says("You made no guess")
    window.control("equal", "input").click()
    window.press("Fit without them")
    window.says("The hashes are equal")
    model = new_model("lmeraser", *split_and_backbone(2, server[2]))
    model.forget(model.split.private.uids[[5]].tolist())
    window.shows(model.hash()[:24])
    window.press("Undo")
    window.says("1 image was added again, and its cluster learned with it: the same hash as before it")
    window.says("689 of 689")


def test_a_wrong_seed_stays_in_its_field_and_changes_nothing(window):
    field = window.control("Seed", "input")
    for wrong in ("-5", "2.5", "12345"):
        field.clear()
        field.send_keys(wrong, Keys.TAB)
        window.press("Fit with this seed")
        window.says(f"The seed is “{wrong}”, expected a whole number from 0 to 9999")
        assert field.get_attribute("value") == wrong
    field.clear()
    field.send_keys("1", Keys.TAB)
    window.press("Fit with this seed")
    window.says("Fitted with seed 1: requests start again, and nobody is chosen.")


def test_closing_a_window_ends_its_kernel_and_no_other(server, window):
    before = kernels(server)
    closed = Window(server[0])
    try:
        (its,) = kernels(server) - before
        closed.driver.switch_to.new_window("tab")  # the browser stays
        closed.driver.switch_to.window(closed.driver.window_handles[0])
        closed.driver.execute_cdp_cmd("Page.close", {})  # as who clicks the cross: the page may still say something
        window.wait(lambda: its not in kernels(server))
        assert before <= kernels(server)
        window.press("2 Forget")
        window.shows("Nobody is chosen.")
    finally:
        closed.driver.quit()


def test_a_kernel_whose_browser_has_died_ends_and_one_whose_window_is_idle_stays(server):
    started = time.monotonic()
    Window(server[0]).driver.quit()
    without_window = 10 + 2 * int(time.monotonic() - started)  # nobody is connected while the notebook runs
    with served(server[2], without_window=without_window) as parts:
        idle = Window(parts[0])
        try:
            (its,) = kernels(parts)
            Window(parts[0]).driver.quit()  # says nothing to the page
            assert len(kernels(parts)) == 2
            idle.wait(lambda: kernels(parts) == {its}, PATIENCE + 2 * without_window)  # the idle one is older
            idle.press("2 Forget")
            idle.shows("Nobody is chosen.")
        finally:
            idle.driver.quit()


def test_every_control_has_a_name_and_breaks_nothing(window):
    for step in ("1 Look", "2 Forget", "3 Attack"):
        window.press(step)
        time.sleep(1)
        names = [control.accessible_name.strip() for control in window.controls()]
        assert all(names), names
        for name in names:
            if name not in ("1 Look", "2 Forget", "3 Attack") and not name.startswith(("Make the others", "Image ")):
                for control in [c for c in window.controls("button") if c.accessible_name.strip() == name]:
                    control.click()
                    window.wait(lambda: not window.status.endswith("..."))
        assert "rror" not in window.status
    method = Select(window.control("Method", "select"))
    names = [option.text for option in method.options]
    for option in [*names[1:], names[0]]:
        method.select_by_visible_text(option)
        window.wait(lambda: "private images" in window.status and not window.status.endswith("..."))
    window.press("Reset")
    window.says("Reset: fitted on everybody")


def test_keys_alone_will_do_and_a_screen_reader_is_told(window):
    look = window.control("2 Forget", "button")
    look.send_keys(Keys.ENTER)
    window.wait(lambda: window.control("Forget", "button"))
    window.control("1 Look", "button").send_keys(Keys.SPACE)
    window.wait(lambda: window.control("Choose this image", "button").send_keys(Keys.ENTER) or True)
    window.says("1 chosen")
    line = window.driver.find_element(By.CSS_SELECTOR, ".lmk-status")
    window.wait(lambda: line.get_attribute("aria-live") == "polite")
    window.wait(lambda: window.control("1 Look", "button").get_attribute("aria-pressed") == "true")
    assert all(image.get_attribute("alt") for image in window.driver.find_elements(By.CSS_SELECTOR, ".lmk img"))


BEYOND = """const page = document.querySelector("#rendered_cells");
return [...page.querySelectorAll("*")].filter(e => e.getBoundingClientRect().right > page.clientWidth + 1)
    .map(e => e.tagName + " " + e.className);"""
SCROLLING = """return [...document.querySelectorAll(".lmk, .lmk .widget-box")]
    .filter(e => /auto|scroll/.test(getComputedStyle(e).overflowY) && e.scrollHeight > e.clientHeight + 1).length"""
SMALLEST = """return Math.min(...[...document.querySelectorAll(".lmk :is(li, figcaption, td, th, p, label)")]
    .map(e => parseFloat(getComputedStyle(e).fontSize)))"""
CUT = """const pen = document.createElement("canvas").getContext("2d"), arrow = 24;
return [...document.querySelectorAll(".lmk select")].filter(e => e.clientWidth).flatMap(e => {
    pen.font = getComputedStyle(e).font;
    return [...e.options].map(o => o.text).filter(text => pen.measureText(text).width > e.clientWidth - arrow); });"""


@pytest.mark.parametrize(("width", "height", "grown"), [(1280, 720, 1), (820, 1180, 1), (1920, 1080, 1.5)])
def test_everything_is_seen_on_a_laptop_a_tablet_and_a_projector(server, width, height, grown):
    window = Window(server[0], width, height)
    try:
        button = window.look("return document.querySelector('.lmk-image').getBoundingClientRect().width")
        assert button == pytest.approx(66 * grown, abs=1)
        window.driver.find_element(By.CSS_SELECTOR, ".lmk-words summary").click()
        window.shows("the frozen network, trained on public images")
        window.press("Choose this image")
        window.forget("70")
        window.says("Forgotten in")
        for step in ("1 Look", "2 Forget", "3 Attack"):
            window.press(step)
            time.sleep(0.5)
            assert not window.look(BEYOND) and not window.look(SCROLLING) and not window.look(CUT)
        assert (
            window.look("return document.querySelectorAll('.lmk ul.tiles li').length") and window.look(SMALLEST) >= 16
        )
        line = window.look("return document.querySelector('.lmk-status').getBoundingClientRect().width")
        assert line / window.look("return document.querySelector('#rendered_cells').clientWidth") > 0.9
    finally:
        window.driver.quit()


def test_an_image_is_attacked_before_and_after_and_the_most_exposed_are_named(server, window):
    References(*split_and_backbone(2, server[2]), 8, server[2]).prepare(("ridge head",), n_jobs=1)
    Select(window.control("Method", "select")).select_by_visible_text("Ridge head (exact)")
    exposed = "All, the most exposed first"
    window.wait(lambda: Select(window.control("Show", "select")).select_by_visible_text(exposed) or True)
    window.shows("furthest apart")
    next(c for c in window.controls("button") if c.accessible_name.startswith("Image ")).click()
    window.press("Choose this image")
    for guess, marks in ((False, "With it: score"), (True, "Before: score")):
        if guess:
            window.forget("0")
            window.says("Forgotten in")
        window.press("3 Attack")
        window.wait(lambda: window.control("among models without it", "input").click() or True)
        window.press("Attack")
        window.says(marks)


def test_two_windows_share_no_model_and_a_tablet_needs_no_scrolling_sideways(server, window):
    other = Window(server[0], 820, 1180)
    try:
        window.press("Choose this image")
        window.forget("70")
        window.says("688 of 689")
        other.press("2 Forget")
        other.press("1 Look")
        other.says("689 of 689")
        for one in (window, other):
            assert one.driver.execute_script("return document.documentElement.scrollWidth - window.innerWidth") <= 0
    finally:
        other.driver.quit()


def test_a_window_says_that_its_kernel_was_killed(server, window):
    of_windows = [psutil.Process(pid) for pid in kernels(server)]
    max(of_windows, key=lambda kernel: kernel.create_time()).kill()  # others are of windows whose browser has ended
    window.wait(lambda: "has stopped" in window.driver.find_element(By.CSS_SELECTOR, "[role=alert]").text)
