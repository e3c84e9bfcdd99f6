"""A headless Chromium, driven over its debugging pipe: the standard library is enough, no driver and no port.

::

    test ──▶ Browser.call ──▶ descriptor 3 of Chromium     messages of JSON, each ended by a zero byte
         ◀──  answer, or an event that is kept  ◀── descriptor 4

One thread, no lock: `call` reads until its answer is there, and keeps the events that come before it.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL import Image

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def found() -> str | None:
    """The path of a Chromium on this machine."""
    return os.environ.get("ABREAST_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """Close it. Pages are opened with no network, and what they ask for is kept in `asked`."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="abreast-chromium-"))
        to_it, self._out = os.pipe()
        self._in, from_it = os.pipe()
        # descriptors 3 and 4 are what Chromium expects: put there by a small program, since dash knows no numbers of two digits
        put = "import os, sys; a, b = map(os.dup, map(int, sys.argv[1:3])); os.dup2(a, 3); os.dup2(b, 4); os.set_inheritable(3, True); os.set_inheritable(4, True); os.execv(sys.argv[3], sys.argv[3:])"
        self._process = subprocess.Popen(
            [
                sys.executable, "-ISc", put, str(to_it), str(from_it), found(), "--headless=new", "--remote-debugging-pipe",
                "--no-sandbox", "--no-first-run", "--disable-gpu", "--disable-dev-shm-usage", "--disable-extensions", "--disable-background-networking",
                "--disable-component-update", "--disable-sync", "--disable-features=BackForwardCache,Translate", "--mute-audio", "--hide-scrollbars", "--host-resolver-rules=MAP * ~NOTFOUND",
                f"--user-data-dir={self.folder}", "about:blank",
            ],
            pass_fds=(to_it, from_it), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env={**os.environ, "HOME": str(self.folder), "LC_ALL": "C.UTF-8"},
        )  # fmt: skip
        os.close(to_it)
        os.close(from_it)
        self._number, self._rest, self.events = 0, b"", []
        self._session: str | None = None

    def close(self) -> None:
        with contextlib.suppress(OSError, AssertionError, RuntimeError):
            self.call("Browser.close", timeout=10)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._out)
        os.close(self._in)
        for _ in range(50):  # its helpers may still be at their last words
            shutil.rmtree(self.folder, ignore_errors=True)
            if not self.folder.exists():
                return
            time.sleep(0.05)

    def call(self, method: str, params: dict[str, Any] | None = None, *, session: str | None = None, timeout: float = 60) -> Any:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params or {}}
        if session:
            message["sessionId"] = session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._out, data) :]
        deadline = time.monotonic() + timeout
        while True:
            answer = self._read(deadline)
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]
            self.events.append(answer)

    def _read(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._rest:
            assert select.select([self._in], [], [], max(0, deadline - time.monotonic()))[0], "Chromium does not answer"
            more = os.read(self._in, 1 << 20)
            assert more, "Chromium has ended"
            self._rest += more
        message, self._rest = self._rest.split(b"\0", 1)
        return json.loads(message)

    def open(
        self,
        path: Path,
        *,
        width: int = 1280,
        height: int = 800,
        scale: float = 1,
        dark: bool = False,
        fragment: str = "",
        script: bool = True,
    ) -> Page:
        page = Page(self, self._tab())
        self.events.clear()
        page.call(
            "Network.emulateNetworkConditions", {"offline": True, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
        )
        page.size(width, height, scale)
        page.dark(dark)
        page.call("Emulation.setScriptExecutionDisabled", {"value": not script})
        page.call("Page.navigate", {"url": path.resolve().as_uri() + fragment})
        if script:
            page.run(
                """new Promise(done => { const look = () => window.timeline && (timeline.opened || timeline.error) ? done() : setTimeout(look, 5); look() })"""
            )
            assert page.run("timeline.error") is None, page.run("timeline.error")
        return page

    def _tab(self) -> str:
        """The one tab, which all pages are shown in: another process for each would take longer than its test."""
        if self._session is None:
            target = self.call("Target.createTarget", {"url": "about:blank"})["targetId"]
            self._session = self.call("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
            for domain in ("Page", "Runtime", "Network", "Log"):
                self.call(f"{domain}.enable", session=self._session)
        return self._session


class Page:
    def __init__(self, browser: Browser, session: str) -> None:
        self.browser, self.session = browser, session

    def call(self, method: str, params: dict[str, Any] | None = None) -> Any:
        return self.browser.call(method, params, session=self.session)

    def close(self) -> None:
        self.run("delete window.timeline")  # the next page has one of its own: so it is seen whether that is there

    def __enter__(self) -> Page:
        return self

    def __exit__(self, *_: object) -> None:
        wrong = self.complaints()
        self.close()
        assert not wrong, wrong

    def run(self, source: str) -> Any:
        """The value of an expression; a promise is awaited."""
        for _ in range(400):  # while a page is being loaded there may be none to run it in
            try:
                answer = self.call(
                    "Runtime.evaluate", {"expression": source, "awaitPromise": True, "returnByValue": True, "userGesture": True}
                )
                break
            except RuntimeError as error:
                if "context" not in str(error) and "navigated" not in str(error) and "collected" not in str(error):
                    raise
                time.sleep(0.01)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def settle(self) -> None:
        """Two frames later."""
        self.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done())))")

    def size(self, width: int, height: int, scale: float = 1) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride", {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": False}
        )

    def dark(self, on: bool) -> None:
        self.call(
            "Emulation.setEmulatedMedia",
            {"media": "", "features": [{"name": "prefers-color-scheme", "value": "dark" if on else "light"}]},
        )

    def mouse(self, kind: str, x: float, y: float, **more: Any) -> None:
        self.call("Input.dispatchMouseEvent", {"type": kind, "x": x, "y": y, **more})

    def move(self, x: float, y: float) -> None:
        self.mouse("mouseMoved", x, y)
        self.settle()

    def click(self, x: float, y: float) -> None:
        self.mouse("mousePressed", x, y, button="left", clickCount=1)
        self.mouse("mouseReleased", x, y, button="left", clickCount=1)
        self.settle()

    def drag(self, x0: float, y0: float, x1: float, y1: float, modifiers: int = 0) -> None:
        self.mouse("mousePressed", x0, y0, button="left", clickCount=1, modifiers=modifiers)
        for part in (0.5, 1):
            self.mouse("mouseMoved", x0 + (x1 - x0) * part, y0 + (y1 - y0) * part, button="left", buttons=1, modifiers=modifiers)
        self.mouse("mouseReleased", x1, y1, button="left", clickCount=1, modifiers=modifiers)
        self.settle()

    def wheel(self, x: float, y: float, dy: float, modifiers: int = 0) -> None:
        self.mouse("mouseWheel", x, y, deltaX=0, deltaY=dy, modifiers=modifiers)
        self.settle()

    def press(self, key: str) -> None:
        codes = {
            "Enter": 13,
            "Escape": 27,
            "Home": 36,
            "ArrowLeft": 37,
            "ArrowUp": 38,
            "ArrowRight": 39,
            "ArrowDown": 40,
            "PageDown": 34,
            "PageUp": 33,
            "Tab": 9,
        }
        text = {"text": "\r" if key == "Enter" else key} if len(key) == 1 or key == "Enter" else {}
        self.call("Input.dispatchKeyEvent", {"type": "keyDown", "key": key, "windowsVirtualKeyCode": codes.get(key, 0), **text})
        self.call("Input.dispatchKeyEvent", {"type": "keyUp", "key": key, "windowsVirtualKeyCode": codes.get(key, 0)})
        self.settle()

    def type(self, text: str) -> None:
        self.call("Input.insertText", {"text": text})
        self.settle()

    def picture(self, path: Path | None = None) -> Image.Image:
        data = base64.b64decode(self.call("Page.captureScreenshot", {"format": "png", "optimizeForSpeed": True})["data"])
        if path:
            path.write_bytes(data)
        from PIL import Image  # not installed where only the fast set runs

        return Image.open(io.BytesIO(data)).convert("RGB")

    def pdf(self) -> bytes:
        return base64.b64decode(self.call("Page.printToPDF", {"printBackground": True})["data"])

    def complaints(self) -> list[str]:
        """Errors, what the page's policy has refused, and requests for anything but the page itself."""
        self.run("0")
        wrong = []
        for event in self.browser.events:
            if event.get("sessionId") != self.session:
                continue
            params = event.get("params", {})
            if event["method"] == "Runtime.exceptionThrown":
                wrong.append(str(params["exceptionDetails"]))
            if event["method"] == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
                wrong.append(params["entry"]["text"])
            if event["method"] == "Network.requestWillBeSent" and not params["request"]["url"].startswith("file:"):
                wrong.append(params["request"]["url"])
        return wrong
