"""Which waiting notices go out now, and in which message together. Pure: `server.people.outbox` sends."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from graph.domain import Severity
from server.people.notices import EVENTS
from server.people.notifier import Notice

GATHER = timedelta(seconds=2)  # a notice waits that long for others that come with it
SINGLES = 3  # messages of one kind within a minute; what is more comes bundled
MINUTE = timedelta(seconds=60)  # a bundle waits for more, but not longer than this
CALM = timedelta(seconds=10)  # …and not when nothing more has come for this long
LISTED = 20  # incidents named in a bundle
GRAVE = (Severity.CRITICAL, Severity.HIGH)


@dataclass(frozen=True)
class Waiting:
    """A notice that is due, with its place in the outbox."""

    id: int
    notice: Notice
    created_at: datetime
    attempts: int
    ripe: bool = True  #: False: it still waits for others that come with it
    digest: bool = False
    sent_to: tuple[str, ...] = ()


@dataclass(frozen=True)
class Message:
    """What goes out as one."""

    members: tuple[Waiting, ...]
    digest: bool = False

    @property
    def grave(self) -> bool:
        return any(one.notice.severity in GRAVE for one in self.members) and not self.digest


def messages(due: Sequence[Waiting], *, lately: Mapping[str, int], now: datetime) -> list[Message]:
    """What may go out now. `lately` counts the messages of each event within the last minute."""
    ready: list[Message] = []
    digested = tuple(one for one in due if one.digest)
    if any(one.ripe for one in digested):
        ready.append(Message(digested, digest=True))
    groups: dict[tuple[str, bool], list[Waiting]] = {}
    for one in due:
        if not one.digest:
            # What failed before goes alone with its kind: its targets differ from those of fresh notices.
            groups.setdefault((one.notice.event, one.attempts > 0), []).append(one)
    for (event, again), group in groups.items():
        if len(group) + (0 if again else lately.get(event, 0)) <= SINGLES:
            ready += [Message((one,)) for one in group if one.ripe]
        elif again or _calm(group, now):
            ready.append(Message(tuple(group)))
    return ready


def _calm(group: Sequence[Waiting], now: datetime) -> bool:
    born = [one.created_at for one in group]
    # One that is yet to be born came before the clock was put back.
    return now - min(born) >= MINUTE or not timedelta() <= now - max(born) < CALM


def text_of(members: Sequence[Waiting], *, digest: bool, link: str, footer: str = "") -> tuple[str, str]:
    """Title and body. Everything in a notice is inert already; the link is ours."""
    if len(members) == 1 and not digest:
        notice = members[0].notice
        words = EVENTS[notice.event].words
        about = f" (incident {notice.incident_id}, {notice.severity.value})" if notice.incident_id else ""
        title = f"Airmedic: {notice.title}" if _says_itself(notice) else f"Airmedic: {words}: {notice.title}"
        return title + about, "\n".join(part for part in (notice.body, _link(notice, link)) if part)
    counted = Counter(EVENTS[one.notice.event].words for one in members)
    counts = ", ".join(f"{count} × {words}" for words, count in counted.items())
    lines = [_line(one.notice) for one in members[:LISTED]]
    if len(members) > LISTED:
        lines.append(f"… and {len(members) - LISTED} more")
    lines.append(f"all of them: {link}/console")
    title = f"Airmedic digest: {counts}" if digest else f"Airmedic: {counts}"
    return title, "\n".join([*lines, *([footer] if footer else [])])


def _says_itself(notice: Notice) -> bool:
    return notice.event in ("unwell", "well_again")


def _line(notice: Notice) -> str:
    number = f"#{notice.incident_id} " if notice.incident_id else ""
    first = notice.body.split("\n", 1)[0]
    return f"{number}{notice.title} ({notice.severity.value}): {first}"[:240]


def _link(notice: Notice, link: str) -> str:
    if notice.incident_id is None:
        return f"{link}/console"
    number = notice.incident_id
    return f"console: {link}/console (or: airmedic show {number}); all of it: {link}/api/incidents/{number}"
