"""Chromium, driven over WebDriver as Debian's chromium-driver speaks it; see w3.org/TR/webdriver2."""

import base64
import http.client
import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PATIENCE = 30.0  # seconds until what is waited for is taken never to come
ENTER, ESCAPE, SHIFT, CONTROL, TAB = "\ue007", "\ue00c", "\ue008", "\ue009", "\ue004"
_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the key of an element's id, the same for ever
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage",
    "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip

# a scroll bar takes a part of the width
_LOOKS = """Math.abs(document.documentElement.clientWidth - given[0]) < 20
    && Object.entries(given[1]).every(([name, value]) => matchMedia(`(${name}: ${value})`).matches)"""

INSTALLED = shutil.which("chromium") is not None and shutil.which("chromedriver") is not None


class Browser:
    """One window."""

    def __init__(self, port: int, folder: Path) -> None:
        self._port = port
        options = {"args": [*_FLAGS, f"--user-data-dir={folder}"], "binary": shutil.which("chromium")}
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        made = self._send("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        self._session = f"/session/{made['sessionId']}"

    def open(self, address: str) -> None:
        """Go to a page, or to the same one anew, and wait until all that it consists of is there."""
        self.run("window.isLeft = true")
        self._post("/url", {"url": address})
        until(lambda: self._reached(address), f"{address} is there")

    def run(self, script: str, *arguments: Any) -> Any:
        """What the body of an async function, in which the page's own modules can be imported, returns."""
        body = f"const done = [...arguments].at(-1); (async (...given) => {{ {script} }})(...arguments)"
        caught = f"{body}.then(found => done({{found}}), error => done({{error: String(error)}}))"
        answer = self._post("/execute/async", {"script": caught, "args": arguments})
        assert "error" not in answer, answer["error"]
        return answer.get("found")

    def wait(self, script: str, *arguments: Any) -> Any:
        """What an expression is, as soon as it is anything."""
        return until(lambda: self.run(f"return {script}", *arguments), script)

    def text(self, selector: str) -> str:
        """The visible text of the last element that is meant; none is no text."""
        found = self.run(
            "const found = [...document.querySelectorAll(given[0])].at(-1);"
            "return found?.checkVisibility() ? found.innerText : ''",
            selector,
        )
        assert isinstance(found, str)
        return found

    def find(self, selector: str) -> dict[str, str]:
        found: dict[str, str] = self._post("/element", {"using": "css selector", "value": selector})
        return found

    def click(self, selector: str) -> None:
        self._post(f"/element/{self.find(selector)[_ELEMENT]}/click", {})

    def type(self, selector: str, text: str) -> None:
        """Type into an element, or give a file's path to a chooser."""
        self._post(f"/element/{self.find(selector)[_ELEMENT]}/value", {"text": text})

    def press(self, *keys: str) -> None:
        """Press keys wherever the focus is, each held until all are pressed."""
        steps = [{"type": "keyDown", "value": key} for key in keys]
        steps += [{"type": "keyUp", "value": key} for key in reversed(keys)]
        self._post("/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": steps}]})

    def drop(self, file: Path, x: int = 300, y: int = 200) -> None:
        """Drag a file from outside over the window, and let it go."""
        data = {"items": [], "files": [str(file)], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.devtools("Input.dispatchDragEvent", type=kind, x=x, y=y, data=data)

    def look(self, width: int, height: int, theme: str = "light", motion: str = "no-preference") -> None:
        """The size of the window in CSS pixels, a phone's if it is narrow, and what its user prefers.

        Waits until the page knows of it.
        """
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.devtools("Emulation.setDeviceMetricsOverride", **size)
        preferred = {"prefers-color-scheme": theme, "prefers-reduced-motion": motion}
        features = [{"name": name, "value": value} for name, value in preferred.items()]
        self.devtools("Emulation.setEmulatedMedia", features=features)
        self.wait(_LOOKS, width, preferred)

    def connect(self, online: bool) -> None:
        """Whether there is a network."""
        speeds = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
        self.devtools("Network.enable")
        self.devtools("Network.emulateNetworkConditions", offline=not online, **speeds)

    def screenshot(self, file: Path) -> None:
        file.write_bytes(base64.b64decode(self._send("GET", f"{self._session}/screenshot")))

    def complaints(self) -> list[str]:
        """What the console says since the last call: errors of scripts, and what the policy forbade."""
        return [entry["message"] for entry in self._post("/se/log", {"type": "browser"})]

    def devtools(self, command: str, **params: Any) -> Any:
        return self._post("/goog/cdp/execute", {"cmd": command, "params": params})

    def close(self) -> None:
        self._send("DELETE", self._session)

    def _reached(self, address: str) -> bool:
        """Whether the page at ``address`` is loaded, and not the one before it any more."""
        try:
            reached = (
                "!window.isLeft && document.readyState === 'complete' && location.href.startsWith(given[0])"
            )
            return bool(self.run(f"return {reached}", address))
        except AssertionError:  # the page was left while it was asked
            return False

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        return self._send("POST", self._session + path, body)

    def _send(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=2 * PATIENCE)
        try:
            connection.request(method, path, None if body is None else json.dumps(body))
            answer = json.loads(connection.getresponse().read())["value"]
        finally:
            connection.close()
        failed = isinstance(answer, dict) and "stacktrace" in answer
        assert not failed, answer["message"]
        return answer


def until(found: Callable[[], Any], what: str) -> Any:
    """What ``found`` returns, as soon as it is anything."""
    deadline = time.monotonic() + PATIENCE
    while not (value := found()):
        assert time.monotonic() < deadline, f"it never came to this: {what}"
        time.sleep(0.05)
    return value


@contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """A browser of its own, with nothing remembered."""
    driver = subprocess.Popen(
        ["chromedriver", "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert driver.stdout is not None
    try:
        port = next(int(found[1]) for line in driver.stdout if (found := re.search(r"on port (\d+)\.", line)))
        window = Browser(port, folder)
        try:
            yield window
        finally:
            window.close()
    finally:
        driver.terminate()
        driver.wait(PATIENCE)
        driver.stdout.close()
