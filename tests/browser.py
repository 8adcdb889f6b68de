"""A headless Chromium, driven through chromedriver's HTTP interface: as much as the tests of the page need."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
ARGUMENTS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1200,900"]


class Browser:
    """One window. Every method raises AssertionError with what chromedriver says went wrong."""

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self._process = subprocess.Popen(
            [DRIVER, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self._base = f"http://127.0.0.1:{port}/session"
        capabilities = {
            "goog:chromeOptions": {"binary": CHROMIUM, "args": ARGUMENTS},
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }
        self._base += f"/{self._started(capabilities)['sessionId']}"

    def _started(self, capabilities: dict[str, Any]) -> dict[str, Any]:
        deadline = time.monotonic() + 60
        while True:
            try:
                return self._post("", {"capabilities": {"alwaysMatch": capabilities}})
            except urllib.error.URLError:
                if time.monotonic() > deadline:
                    self._process.kill()
                    raise
                time.sleep(0.1)

    def _post(self, path: str, body: dict[str, Any], method: str = "POST") -> Any:
        request = urllib.request.Request(self._base + path, json.dumps(body).encode(), method=method)
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return json.loads(answer.read())["value"]
        except urllib.error.HTTPError as error:
            with error:
                raise AssertionError(json.loads(error.read())["value"]["message"]) from None

    def open(self, address: str) -> None:
        """Load a page and wait for it."""
        self._post("/url", {"url": address})

    def run(self, script: str, *arguments: object) -> Any:
        """What a function's body returns; where it is a promise, what that comes to."""
        return self._post("/execute/sync", {"script": script, "args": arguments})

    def command(self, name: str, **parameters: object) -> Any:
        """A command of the DevTools protocol."""
        return self._post("/goog/cdp/execute", {"cmd": name, "params": parameters})

    def log(self, kind: str) -> list[dict[str, Any]]:
        """What has been logged since this was asked last: `browser` is the console, `performance` the network."""
        return self._post("/se/log", {"type": kind})

    def close(self) -> None:
        """End the window and its driver."""
        self._post("", {}, "DELETE")
        self._process.terminate()
        self._process.wait(20)
