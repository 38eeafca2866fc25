"""The way out: Apprise, which is synchronous, in threads of its own with a time limit.

Nothing is sent anywhere but to the configured URLs: redirects are not followed, nothing is attached.
"""

from __future__ import annotations

import asyncio
import threading
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Protocol

from graph.errors import SettingsInvalid
from server.people.inert import inert_line

if TYPE_CHECKING:
    from apprise import AppriseAsset, NotifyType

LIMIT = 20.0  # seconds one message may take


@dataclass(frozen=True)
class Sent:
    """How one message to one target ended."""

    ok: bool
    why: str = ""


class Door(Protocol):
    """Sends one message to one target."""

    def name(self, url: str) -> str:
        """How a target is called where people read it: without its secrets."""

    async def send(self, url: str, *, title: str, body: str, grave: bool) -> Sent:
        """Send; a failure is an answer, never an exception."""


class AppriseDoor:
    """Sends through Apprise."""

    def __init__(self, urls: Sequence[str], *, limit: float = LIMIT) -> None:
        """Raises `SettingsInvalid` naming every URL that Apprise does not understand."""
        self._limit = limit
        self._asset = _asset()
        self._names: dict[str, str] = {}
        self._under_way: dict[str, threading.Thread] = {}
        wrong = []
        for number, url in enumerate(urls, start=1):
            name = _described(url, self._asset)
            if name is None:
                wrong.append(
                    f"notification URL {number} ({_scheme(url)}...) is none that Apprise understands"
                )
            else:
                self._names[url] = name if name not in self._names.values() else f"{name} #{number}"
        if wrong:
            raise SettingsInvalid("\n".join(wrong) + "\nsee https://appriseit.com for how they are written")

    def name(self, url: str) -> str:
        return self._names[url]

    async def send(self, url: str, *, title: str, body: str, grave: bool) -> Sent:
        before = self._under_way.get(url)
        if before is not None and before.is_alive():
            return Sent(False, "the message before this one still hangs")
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[Sent] = loop.create_future()

        def tell(sent: Sent) -> None:
            if not ended.done():
                ended.set_result(sent)

        def work() -> None:
            sent = self._send(url, title, body, grave=grave)
            try:
                loop.call_soon_threadsafe(tell, sent)
            except RuntimeError:
                return  # the loop is closed: nobody waits any more

        # A daemon: a provider that hangs must not keep the process from ending.
        thread = threading.Thread(target=work, name="notify", daemon=True)
        self._under_way[url] = thread
        thread.start()
        try:
            async with asyncio.timeout(self._limit):
                return await ended
        except TimeoutError:
            return Sent(False, f"no answer within {self._limit:.0f} s")

    def _send(self, url: str, title: str, body: str, *, grave: bool) -> Sent:
        apprise = _apprise()
        door = apprise.Apprise(asset=self._asset)
        try:
            if not door.add(url):
                return Sent(False, "Apprise does not understand the URL")
            result = door.notify(
                title=title,
                body=body,
                notify_type=_kind(grave),
                body_format=apprise.NotifyFormat.TEXT,
            )
        except Exception as exc:  # noqa: BLE001  a hundred plugins: whatever one raises is a message not sent
            return Sent(False, type(exc).__name__)
        if result:
            return Sent(True)
        told = [entry.message for entry in result.logs()]
        return Sent(False, inert_line(told[-1], longest=300) if told else "the provider did not take it")


def _apprise() -> ModuleType:
    """Imported when somebody is to be told: its hundred plugins take two seconds and 50 MB."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        import apprise

        # The first address imports them all, some of them with modules that are on their way out.
        apprise.Apprise.instantiate("json://localhost")
    return apprise


def _asset() -> AppriseAsset:
    # Its own time limit works through a pool whose threads the interpreter waits for at the end.
    asset: AppriseAsset = _apprise().AppriseAsset(storage_mode="memory", service_timeout=0)
    asset.http_redirects = False
    asset.app_id = asset.app_desc = "Airmedic"
    return asset


def _described(url: str, asset: AppriseAsset) -> str | None:
    """The target without its secrets; None when Apprise does not understand the URL."""
    found = _apprise().Apprise.instantiate(url, asset=asset)
    if found is None or isinstance(found, list):
        return None
    private: str = found.url(privacy=True)
    return private.partition("?")[0][:120]


def _kind(grave: bool) -> NotifyType:
    kinds = _apprise().NotifyType
    kind: NotifyType = kinds.WARNING if grave else kinds.INFO
    return kind


def _scheme(url: str) -> str:
    scheme, found, _ = url.partition("://")
    return f"{scheme[:20]}://" if found else "no scheme"
