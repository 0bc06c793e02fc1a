"""A headless Chromium that tests talk to over a pipe, by the protocol of its developer tools."""

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

NAMES = 'chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable'
SWITCHES = (
    '--headless',
    '--disable-gpu',
    '--no-sandbox',
    '--no-first-run',
    '--disable-dev-shm-usage',
    # Nothing is asked of a network.
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
    '--disable-quic',
)
SECONDS = 60


class Page:
    """A tab: what was said on its console, and what can be done in it."""

    def __init__(self, commands: int, answers: int) -> None:
        self._commands, self._answers = commands, answers
        self._rest, self._number, self._session = b'', 0, None
        self.errors: list[str] = []
        self.requests: list[str] = []

    def send(self, method: str, **arguments: object) -> dict:
        """Give a command of the protocol, and wait for its result."""
        self._number += 1
        message = dict(id=self._number, method=method, params=arguments)
        if self._session:
            message['sessionId'] = self._session
        os.write(self._commands, json.dumps(message).encode() + b'\0')
        while True:
            answer = self._read()
            if answer.get('id') == self._number:
                assert 'error' not in answer, (method, answer['error'])
                return answer['result']
            self._note(answer)

    def open(self, path: Path | str, width: int = 1200, height: int = 900) -> None:
        """Open a file in a window of this size."""
        target = self.send('Target.createTarget', url='about:blank')['targetId']
        session = self.send('Target.attachToTarget', targetId=target, flatten=True)['sessionId']
        self._session = session
        for domain in ('Page', 'Runtime', 'Log', 'Network'):
            self.send(f'{domain}.enable')
        self.resize(width, height)
        self.send('Page.navigate', url=str(path) if '://' in str(path) else Path(path).as_uri())
        self.wait('document.readyState === "complete"')

    def resize(self, width: int, height: int) -> None:
        """Give the window another size, in pixels."""
        size = dict(width=width, height=height, deviceScaleFactor=1, mobile=width < 600)
        self.send('Emulation.setDeviceMetricsOverride', **size)

    def run(self, expression: str) -> object:
        """The value of an expression of JavaScript, after its promise."""
        options = dict(returnByValue=True, awaitPromise=True)
        answer = self.send('Runtime.evaluate', expression=expression, **options)
        assert 'exceptionDetails' not in answer, answer['exceptionDetails']
        return answer['result'].get('value')

    def wait(self, condition: str) -> None:
        """Until an expression is true; fails after ten seconds."""
        poll = (
            'new Promise((resolve, reject) => { const end = Date.now() + 10000; '
            'const look = () => '
            f'({condition}) ? resolve(true) : Date.now() > end ? reject("never true") : '
            'setTimeout(look, 20); look(); })'
        )
        assert self.run(poll), condition

    def click(self, x: float, y: float) -> None:
        """Click at a place of the window."""
        for kind, buttons in (('mouseMoved', 0), ('mousePressed', 1), ('mouseReleased', 0)):
            self.send(
                'Input.dispatchMouseEvent',
                **dict(type=kind, x=x, y=y, buttons=buttons, clickCount=int(kind != 'mouseMoved')),
                button='none' if kind == 'mouseMoved' else 'left',
            )

    def move(self, x: float, y: float) -> None:
        """Move the mouse to a place of the window."""
        self.send('Input.dispatchMouseEvent', type='mouseMoved', x=x, y=y)

    def touch(self, x: float, y: float) -> None:
        """Tap a place of the window."""
        self.send('Input.dispatchTouchEvent', type='touchStart', touchPoints=[dict(x=x, y=y)])
        self.send('Input.dispatchTouchEvent', type='touchEnd', touchPoints=[])

    def press(self, key: str, shift: bool = False) -> None:
        """Press and release a key, as 'ArrowLeft'."""
        for kind in ('rawKeyDown', 'keyUp'):
            options = dict(key=key, code=key, modifiers=8 * shift)
            self.send('Input.dispatchKeyEvent', type=kind, **options)

    def dark(self) -> None:
        """Have the page shown to a user who prefers dark pages."""
        feature = dict(name='prefers-color-scheme', value='dark')
        self.send('Emulation.setEmulatedMedia', features=[feature])

    def screenshot(self, path: Path | str) -> None:
        """Write what the window shows as PNG."""
        data = self.send('Page.captureScreenshot', captureBeyondViewport=True)['data']
        Path(path).write_bytes(base64.b64decode(data))

    def names(self) -> set[tuple[str, str]]:
        """Roles and names of all that is said to those who do not see."""
        nodes = self.send('Accessibility.getFullAXTree')['nodes']
        return {
            (x['role']['value'], x['name']['value'].strip())
            for x in nodes
            if not x['ignored'] and x.get('name', {}).get('value')
        }

    def _read(self) -> dict:
        while b'\0' not in self._rest:
            ready = select.select([self._answers], [], [], SECONDS)[0]
            assert ready, f'Chromium has said nothing for {SECONDS} seconds'
            some = os.read(self._answers, 1 << 20)
            assert some, 'Chromium has ended'
            self._rest += some
        message, _, self._rest = self._rest.partition(b'\0')
        return json.loads(message)

    def _note(self, event: dict) -> None:
        given = event.get('params', {})
        if event['method'] == 'Runtime.exceptionThrown':
            self.errors.append(given['exceptionDetails']['text'])
        elif event['method'] == 'Runtime.consoleAPICalled' and given['type'] == 'error':
            self.errors.append(str(given['args']))
        elif event['method'] == 'Log.entryAdded' and given['entry']['level'] == 'error':
            self.errors.append(given['entry']['text'])
        elif event['method'] == 'Network.requestWillBeSent':
            self.requests.append(given['request']['url'])


@contextlib.contextmanager
def chromium() -> Iterator[Page]:
    """A fresh browser with a tab; skips the test where there is none."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip('needs Chromium: apt-get install chromium')
    ours, theirs = os.pipe(), os.pipe()  # commands, answers: (reading end, writing end)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        # Chromium reads commands from descriptor 3 and writes answers to 4.
        script = f'exec 3<&{ours[0]} 4>&{theirs[1]}; exec "$0" "$@"'
        process = subprocess.Popen(
            ['bash', '-c', script, program, *SWITCHES, '--remote-debugging-pipe']
            + [f'--user-data-dir={profile}'],
            pass_fds=(ours[0], theirs[1]),
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        os.close(ours[0])
        os.close(theirs[1])
        try:
            page = Page(ours[1], theirs[0])
            yield page
        finally:
            os.close(ours[1])
            os.close(theirs[0])
            process.kill()
            process.wait(SECONDS)
