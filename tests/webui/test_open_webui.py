"""Open WebUI from its package, in a headless Chromium, against the daemon and a real engine.

Its configuration is its own but for the address.  What would go to other servers is off: telemetry, the hub and the
embedding model it would fetch from there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support import expected_conditions as until
from selenium.webdriver.support.ui import WebDriverWait

from tests.daemon import INSTALLED, Daemon, daemon, eventually, free_port
from tests.engines import able

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]

PATIENCE = 120  # seconds for whatever the page is waited for
SHOT = Path(__file__).parents[2] / ".cache" / "open-webui.png"
TEMPLATE = (Path(__file__).parent / "talker.jinja").read_text(encoding="utf-8")
ALONE = {
    "ANONYMIZED_TELEMETRY": "False",
    "DO_NOT_TRACK": "true",
    "SCARF_NO_ANALYTICS": "true",
    "HF_HUB_OFFLINE": "1",
    "OFFLINE_MODE": "True",
    "RAG_EMBEDDING_ENGINE": "ollama",
}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """Two models, so that one must be picked."""
    talker = able.gguf(tmp_path_factory.mktemp("model"), TEMPLATE)
    demo = next(INSTALLED.models.rglob("*.gguf"))
    keys = {"engine": "llama_cpp", "args": ["--threads", "1"], "parameters": {"temperature": 0, "num_predict": 48}}
    models = {"demo": {"path": str(demo), **keys}, "talker": {"path": str(talker), **keys}}
    with daemon(models, main='[fleet]\nkeep_alive = "-1"\n') as running:
        yield running


@pytest.fixture(scope="module")
def address(served: Daemon, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where Open WebUI answers."""
    home, port = tmp_path_factory.mktemp("webui"), free_port()
    program = Path(sys.executable).with_name("open-webui")
    own = {"PATH": os.environ["PATH"], "HOME": str(home), "LANG": "C.UTF-8", "DATA_DIR": str(home / "data")}
    environ = {**own, **ALONE, "WEBUI_SECRET_KEY": "of a test", "OLLAMA_BASE_URL": served.url}
    with (home / "log").open("wb") as log:
        argv = [str(program), "serve", "--host", "127.0.0.1", "--port", str(port)]
        server = subprocess.Popen(argv, env=environ, cwd=home, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        assert server.poll() is None, (home / "log").read_text()[-4000:]
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5) as reply:
                return bool(reply.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    try:
        eventually(answers, within=240, what="Open WebUI answers")
        yield url
    finally:
        server.terminate()
        server.wait(30)


@pytest.fixture
def browser() -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1000,720"):
        options.add_argument(argument)
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    assert chromium, "Debian's chromium is needed"
    assert driver, "Debian's chromium-driver is needed"
    options.binary_location = chromium
    with webdriver.Chrome(options=options, service=Service(driver)) as browser:
        yield browser


class Page:
    """What a person does on a page: wait for something, then act on it."""

    def __init__(self, browser: webdriver.Chrome) -> None:
        self._browser = browser
        self._wait = WebDriverWait(browser, PATIENCE)

    def click(self, selector: str) -> None:
        self._wait.until(until.element_to_be_clickable((By.CSS_SELECTOR, selector))).click()

    def click_words(self, words: str) -> None:
        self._wait.until(until.element_to_be_clickable((By.XPATH, f'//button[contains(., "{words}")]'))).click()

    def write(self, selector: str, text: str) -> WebElement:
        field = self._wait.until(until.element_to_be_clickable((By.CSS_SELECTOR, selector)))
        field.send_keys(text)
        return field

    def await_end(self) -> None:
        """Of an answer: it may then be asked for again."""
        self._wait.until(until.presence_of_element_located((By.CSS_SELECTOR, "button[aria-label='Regenerate']")))

    def see(self, selector: str, words: str) -> None:
        self._wait.until(until.text_to_be_present_in_element((By.CSS_SELECTOR, selector), words))


def test_a_first_user_asks_a_model(served: Daemon, address: str, browser: webdriver.Chrome) -> None:
    page = Page(browser)
    browser.get(address)
    page.click("button[aria-label='Get started']")
    page.write("input[autocomplete=name]", "Ada")
    page.write("input[type=email]", "ada@example.org")
    page.write("input[type=password]", "correct horse battery")
    page.click("button[type=submit]")
    page.click_words("Okay, Let")  # it tells what is new

    page.click("#model-selector-model-button")
    page.write("#model-search-input", "talker")
    page.click("button[data-value='talker:latest']")
    page.see("#model-selector-model-button", "talker:latest")

    page.write("#chat-input", "What is the capital of France?").send_keys(Keys.ENTER)
    page.see(".chat-assistant", "The capital of France is Paris.")
    page.await_end()
    SHOT.parent.mkdir(exist_ok=True)
    browser.save_screenshot(str(SHOT))

    rows = {row["name"]: row for row in served.ps()}
    assert rows["talker:latest"]["engine"] == "llama_cpp"
    assert "model=talker:latest" in served.log.read_text()
