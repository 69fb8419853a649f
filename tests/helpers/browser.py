"""A site in headless Chromium, driven through what people see and touch: for `make test-web`."""

from __future__ import annotations

import functools
import http.server
import os
import threading
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.support.ui import WebDriverWait

SHOTS = os.environ.get("HRM_EDGE_SHOTS")  # a folder for pictures of the page
_SECONDS = 180  # the machine may be busy
# Everything that the policy stops is remembered, from before the page's own scripts run.
_WATCH_POLICY = (
    "window.stopped = []; document.addEventListener('securitypolicyviolation', "
    "(event) => window.stopped.push(event.violatedDirective + ' ' + event.blockedURI));"
)


class Served:
    """A folder over HTTP on this machine. ``asked``: each request's path and the bytes of its answer."""

    def __init__(self, folder: Path) -> None:
        self.asked: list[tuple[str, int]] = []
        served = self

        class Handler(http.server.SimpleHTTPRequestHandler):
            def log_message(self, *_: Any) -> None: ...

            def send_header(self, keyword: str, value: str) -> None:
                if keyword.lower() == "content-length":
                    served.asked.append((self.path, int(value)))
                super().send_header(keyword, value)

            def copyfile(self, source: Any, outputfile: Any) -> None:
                with suppress(ConnectionError):  # the browser was closed
                    super().copyfile(source, outputfile)

        self._server = http.server.ThreadingHTTPServer(
            ("127.0.0.1", 0), functools.partial(Handler, directory=str(folder))
        )
        self.address = f"http://127.0.0.1:{self._server.server_port}/"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class Page:
    """A page that is open in a browser."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, address: str) -> None:
        """Load it, and wait until its model is loaded."""
        self.driver.get(address)
        self.until("document.getElementById('state').textContent")
        self.until("document.getElementById('verdict').dataset.state !== 'busy'")

    def js(self, code: str, *arguments: Any) -> Any:
        return self.driver.execute_script(code, *arguments)

    def until(self, condition: str, *arguments: Any) -> None:
        """Wait for an expression of JavaScript."""
        WebDriverWait(self.driver, _SECONDS, 0.05).until(
            lambda driver: driver.execute_script(f"return {condition}", *arguments)
        )

    def text(self, name: str) -> str:
        return self.js("return document.getElementById(arguments[0]).textContent", name)

    @property
    def verdict(self) -> tuple[str, str]:
        """What the page says of the answer: its kind, and the words."""
        return self.js("return document.getElementById('verdict').dataset.state"), self.text("state")

    def ask(self, text: str) -> None:
        """Put a puzzle into the text field, as pasting does."""
        self.js(
            "const field = document.getElementById('text'); field.value = arguments[0];"
            "field.dispatchEvent(new Event('input', { bubbles: true }));",
            text,
        )

    def think(self) -> None:
        """Press the button, and wait for the end."""
        self.js("document.getElementById('think').click()")
        self.until_ended()

    def until_ended(self) -> None:
        self.until("['good', 'bad', 'open'].includes(document.getElementById('verdict').dataset.state)")

    def swipe(self, name: str, *, across: int = 0, down: int = 0) -> None:
        """A finger touches an element in its middle, moves by so many pixels, and is lifted."""
        place = self.js(
            "const box = document.getElementById(arguments[0]).getBoundingClientRect();"
            "return [box.x + box.width / 2, box.y + box.height / 2]",
            name,
        )
        for part in range(11):
            at = {"x": place[0] + across * part / 10, "y": place[1] + down * part / 10}
            self._touch("touchMove" if part else "touchStart", [at])
        self._touch("touchEnd", [])

    def _touch(self, kind: str, points: list[dict[str, float]]) -> None:
        self.driver.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    def drop(self, *files: Path, text: str | None = None) -> None:
        """Files, or a text, are dragged over the page and let go."""
        items = [] if text is None else [{"mimeType": "text/plain", "data": text}]
        data = {"items": items, "files": [str(file) for file in files], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.driver.execute_cdp_cmd("Input.dispatchDragEvent", {"type": kind, "x": 300, "y": 300, "data": data})

    def has_gpu(self) -> bool:
        """Whether pages may compute on a GPU, if only on one that is emulated."""
        return self.driver.execute_async_script(
            "const done = arguments[0];"
            "if (!navigator.gpu) done(false);"
            "else navigator.gpu.requestAdapter().then((adapter) => done(adapter !== null), () => done(false))"
        )

    def cells(self) -> list[str]:
        """What stands in each cell, as it is seen."""
        return self.js("return [...document.querySelectorAll('.cell')].map((cell) => cell.textContent)")

    def labels(self) -> list[str]:
        """What a screen reader says of each cell."""
        return self.js(
            "return [...document.querySelectorAll('.cell')].map((cell) => cell.getAttribute('aria-label'))"
        )

    @property
    def stopped(self) -> list[str]:
        """What the security policy stopped."""
        return self.js("return window.stopped")

    @property
    def clean(self) -> bool:
        """Whether the policy stopped nothing, and nothing failed since it was last asked."""
        return self.stopped == [] and self.errors() == []

    def errors(self) -> list[str]:
        """What the browser's console says of errors since it was last asked."""
        return [each["message"] for each in self.driver.get_log("browser") if each["level"] == "SEVERE"]

    def look(self, width: int, height: int, *, phone: bool = False, dark: bool = False, still: bool = True) -> None:
        """Show it in a window of this size, as a phone does, dark or light, in motion or still."""
        ratio = 2 if phone else 1
        size = {"width": width, "height": height, "deviceScaleFactor": ratio, "mobile": phone}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self.driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": phone})
        motion = "reduce" if still else ""
        wishes = {"prefers-color-scheme": "dark" if dark else "light", "prefers-reduced-motion": motion}
        features = [{"name": name, "value": value} for name, value in wishes.items()]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def shoot(self, name: str, *, whole: bool = False) -> None:
        """A picture of it, where somebody named a folder for them."""
        if SHOTS:
            options = {"format": "png", "captureBeyondViewport": whole}
            shot = self.driver.execute_cdp_cmd("Page.captureScreenshot", options)
            (Path(SHOTS) / f"{name}.png").write_bytes(b64decode(shot["data"]))


@contextmanager
def browser(*flags: str) -> Iterator[Page]:
    """A browser with nothing kept from before."""
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", *flags):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService("/usr/bin/chromedriver"))
    driver.set_script_timeout(_SECONDS)
    driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": _WATCH_POLICY})
    page = Page(driver)
    page.look(1280, 950)
    try:
        yield page
    finally:
        driver.quit()
