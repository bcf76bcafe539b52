"""Headless Chromium, driven through a pipe: the DevTools protocol without a socket."""

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
# None of these reaches for a network, and a container needs no sandbox of its own.
_OPTIONS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --disable-dev-shm-usage --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync --disable-extensions "
    "--disable-default-apps --hide-scrollbars --remote-debugging-pipe"
)
_PATIENCE = 120


class Browser:
    """One tab.

    Attributes:
        said: errors and warnings of the console, and uncaught exceptions.
        asked: every address that the page asked for.
    """

    def __init__(self, to: Any, back: Any) -> None:
        self._to, self._back = to, back
        self._number = 0
        self._buffer = b""
        self._loaded = False
        self.said: list[str] = []
        self.asked: list[str] = []
        targets = self._call("Target.getTargets")["targetInfos"]
        target = next(one["targetId"] for one in targets if one["type"] == "page")
        attached = self._call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable")

    _session: str | None = None

    def _call(self, method: str, **parameters: Any) -> Any:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._to.write(json.dumps(message).encode() + b"\0")
        self._to.flush()
        while (found := self._next()).get("id") != self._number:
            pass
        assert "error" not in found, (method, found)
        return found["result"]

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._back], [], [], _PATIENCE)
            assert ready, f"Chromium has said nothing for {_PATIENCE} seconds"
            piece = os.read(self._back.fileno(), 1 << 16)
            assert piece, "Chromium has ended"
            self._buffer += piece
        line, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        about = message.get("params", {})
        match message.get("method"):
            case "Runtime.exceptionThrown":
                self.said.append(json.dumps(about["exceptionDetails"]))
            case "Runtime.consoleAPICalled" if about["type"] in ("error", "warning", "assert"):
                self.said.append(json.dumps(about["args"]))
            case "Log.entryAdded":
                self.said.append(about["entry"]["text"])
            case "Network.requestWillBeSent":
                self.asked.append(about["request"]["url"])
            case "Page.loadEventFired":
                self._loaded = True
        return message

    def open(self, page: Path, width: int, height: int = 900, dark: bool = False) -> None:
        """Opens a file in a window of this width."""
        self._call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", features=[scheme])
        self._loaded = False
        # A page that differs only by its anchor is not loaded again.
        self._call("Page.navigate", url="about:blank")
        self._wait()
        self._call("Page.navigate", url=page.resolve().as_uri())
        self._wait()

    def _wait(self) -> None:
        end = time.monotonic() + _PATIENCE
        while not self._loaded:
            assert time.monotonic() < end
            self._next()
        self._loaded = False

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression."""
        found = self._call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def screenshot(self, path: Path, *, top: int = 0, height: int | None = None, width: int = 1280) -> None:
        """Writes a PNG of the page, whole or from `top`."""
        whole = self.run("document.documentElement.scrollHeight")
        clip = {"x": 0, "y": top, "width": width, "height": height or whole, "scale": 1}
        found = self._call("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        path.write_bytes(base64.b64decode(found["data"]))


@contextmanager
def browser() -> Iterator[Browser]:
    """Starts Chromium and ends it."""
    assert PROGRAM is not None
    to_read, to = os.pipe()
    back, back_write = os.pipe()
    # Not 3 or 4, which the shell sets.
    inner = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (to_read, back_write)]
    os.close(to_read)
    os.close(back_write)
    with TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        # Chromium reads commands from descriptor 3 and answers on 4.
        command = f'exec "$0" "$@" 3<&{inner[0]} 4>&{inner[1]}'
        process = subprocess.Popen(
            ["bash", "-c", command, PROGRAM, *_OPTIONS.split(), f"--user-data-dir={profile}", "about:blank"],
            pass_fds=inner,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "HOME": profile},
        )
        for end in inner:
            os.close(end)
        try:
            with os.fdopen(to, "wb") as commands, os.fdopen(back, "rb", buffering=0) as answers:
                yield Browser(commands, answers)
        finally:
            process.terminate()
            process.wait()
