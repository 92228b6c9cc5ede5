"""A headless Chromium that opens one page at a width, without network, over its debugging pipe."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

PROGRAM = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chrome")

# Chromium reads commands from descriptor 3 and answers on 4; either may be the other's number now.
_START = """
import fcntl, os, sys
ends = [fcntl.fcntl(int(end), fcntl.F_DUPFD, 10) for end in sys.argv[1:3]]
os.dup2(ends[0], 3)
os.dup2(ends[1], 4)
os.execv(sys.argv[3], sys.argv[3:])
"""


class Browser:
    """``with Browser(folder) as browser``: pages opened one after the other."""

    def __init__(self, profile: Path) -> None:
        theirs_in, self._to = os.pipe()
        self._from, theirs_out = os.pipe()
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-c", _START, str(theirs_in), str(theirs_out), PROGRAM),
                "--headless",
                *(["--no-sandbox"] if os.geteuid() == 0 else []),
                "--disable-gpu",
                "--disable-background-networking",
                "--host-resolver-rules=MAP * ~NOTFOUND",
                f"--user-data-dir={profile}",
                "--remote-debugging-pipe",
            ],
            pass_fds=(theirs_in, theirs_out),
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._read, self._count, self._session = b"", 0, {}
        self.messages: list[str] = []
        page = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = {
            "sessionId": self.call("Target.attachToTarget", targetId=page, flatten=True)[
                "sessionId"
            ]
        }
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call(
            "Network.emulateNetworkConditions",
            offline=True,
            latency=0,
            downloadThroughput=-1,
            uploadThroughput=-1,
        )

    def open(self, page: Path, width: int, height: int = 800) -> None:
        """Opens a file; what it says on the console, and what it fetches, is in ``messages``."""
        self.messages.clear()
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        self.call("Page.navigate", url=page.as_uri())
        end = time.monotonic() + 60
        while self.value("document.readyState + location.href") != f"complete{page.as_uri()}":
            assert time.monotonic() < end, "the page does not load"
            time.sleep(0.05)

    def value(self, expression: str) -> object:
        """What an expression is on the page; promises are waited for."""
        found = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def picture(self, file: Path) -> None:
        """The whole page as a PNG."""
        taken = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(taken["data"]))

    def printed(self, file: Path) -> None:
        """The page as a PDF."""
        taken = self.call(
            "Page.printToPDF", printBackground=False, paperWidth=8.27, paperHeight=11.7
        )
        file.write_bytes(base64.b64decode(taken["data"]))

    def call(self, method: str, **arguments: object) -> dict:
        """A command of the DevTools protocol and its answer."""
        self._count += 1
        command = {"id": self._count, "method": method, "params": arguments, **self._session}
        os.write(self._to, json.dumps(command).encode() + b"\0")
        while True:
            while b"\0" not in self._read:
                more = os.read(self._from, 1 << 20)
                assert more, "the browser has ended"
                self._read += more
            text, self._read = self._read.split(b"\0", 1)
            answer = json.loads(text)
            if answer.get("id") == self._count:
                assert "error" not in answer, answer
                return answer["result"]
            self._note(answer)

    def _note(self, event: dict) -> None:
        seen = event.get("params", {})
        if event["method"] in (
            "Runtime.consoleAPICalled",
            "Runtime.exceptionThrown",
            "Log.entryAdded",
        ):
            self.messages.append(json.dumps(seen)[:500])
        if event["method"] == "Network.requestWillBeSent":
            url = seen["request"]["url"]
            if not url.startswith(("data:", "file:")):
                self.messages.append(f"fetches {url}")

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(AssertionError, OSError):
            self._session = {}
            self.call("Browser.close")
        os.close(self._to)
        os.close(self._from)
        self._process.wait(timeout=30)
