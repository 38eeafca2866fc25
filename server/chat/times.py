"""Times in a person's words, in the person's zone: windows that are over, and moments to come. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

from graph.domain import DomainType

NIGHT, MORNING = time(18, 0), time(9, 0)  # "last night" is from one to the other
SMALL = 5  # hours: before that it is night
LONGEST_PAUSE = timedelta(days=14)
WORDS = {
    "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9,
    "ten": 10, "eleven": 11, "twelve": 12, "noon": 12, "midnight": 0, "half an": 0.5, "a": 1, "an": 1,
}  # fmt: skip
EXAMPLES = "say for example: until 9:00, until tomorrow 9, for 2 hours"
NUMBERS = "one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve"
UNITS = {"minute": 60, "min": 60, "hour": 3600, "h": 3600, "day": 86_400, "week": 604_800}
_COUNT = rf"(?P<count>\d{{1,4}}|half an|{NUMBERS}|an?)"

AGO = re.compile(rf"(?:last|past|within) (?:{_COUNT} )?(?P<unit>minute|min|hour|h|day|week|month)s?\b")
FOR = re.compile(rf"\bfor (?:the next )?{_COUNT} ?(?P<unit>minute|min|hour|h|day|week)s?\b")
AT = re.compile(
    r"\b(?:until|till) (?P<day>tomorrow |today |tonight )?(?:at )?"
    r"(?P<hour>\d{1,2}|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|noon|midnight)"
    r"(?:[:.h](?P<minute>\d{2}))?(?: ?(?P<half>am|pm|o'clock))?"
    r"(?P<later> (?:tomorrow|in the morning|in the evening|tonight|today))?\b"
)
DATED = re.compile(r"\b(?:until|till) (?P<moment>\d{4}-\d\d-\d\d(?:[ t]\d\d:\d\d)?)\b")
UNTIL = re.compile(r",? ?\b(?:until|till|for)\b.*$", re.IGNORECASE)


class Window(DomainType):
    """A time that is looked back on, and how it is called."""

    since: datetime
    until: datetime
    words: str


def window_of(text: str, *, now: datetime, zone: ZoneInfo) -> Window | None:
    """The window that a text names; None when it names none."""
    words, here = text.casefold(), now.astimezone(zone)
    today = here.replace(hour=0, minute=0, second=0, microsecond=0)
    if "last night" in words or "over night" in words or "overnight" in words:
        end = min(here, today + _of(MORNING))
        return _window(today - timedelta(days=1) + _of(NIGHT), end, "last night")
    if "since yesterday" in words:
        return _window(today - timedelta(days=1), here, "since yesterday")
    if "yesterday" in words:
        return _window(today - timedelta(days=1), today, "yesterday")
    if "today" in words or "this morning" in words:
        return _window(today, here, "today")
    if "this week" in words:
        return _window(today - timedelta(days=today.weekday()), here, "this week")
    if (found := AGO.search(words)) is not None:
        unit = found.group("unit")
        seconds = _count(found.group("count") or "1") * (30 * 86_400 if unit == "month" else UNITS[unit])
        return _window(here - timedelta(seconds=seconds), here, found.group())
    return None


def moment_of(text: str, *, now: datetime, zone: ZoneInfo) -> datetime | None:
    """The moment to come until which something is to last; None when the text names none.

    Raises `ValueError` with a sentence when it names one that cannot be meant.
    """
    words, here = text.casefold(), now.astimezone(zone)
    moment = _until(words, here, zone)
    if moment is None:
        if re.search(r"\b(?:until|till)\b", words):
            raise ValueError(
                "I do not understand until when; say for example: until 9:00, until tomorrow 9, for 2 hours"
            )
        return None
    if moment <= now:
        raise ValueError(f"{moment.astimezone(zone):%Y-%m-%d %H:%M} is over already")
    if moment - now > LONGEST_PAUSE:
        raise ValueError(f"that is more than {LONGEST_PAUSE.days} days ahead")
    return moment.astimezone(UTC)


def _until(words: str, here: datetime, zone: ZoneInfo) -> datetime | None:
    if (found := FOR.search(words)) is not None:
        return here + timedelta(seconds=_count(found.group("count")) * UNITS[found.group("unit")])
    if (found := DATED.search(words)) is not None:
        return datetime.fromisoformat(found.group("moment").replace("t", " ")).replace(tzinfo=zone)
    if (found := AT.search(words)) is None:
        return None
    hour, minute = int(_count(found.group("hour"))), int(found.group("minute") or 0)
    told = f"{found.group('day') or ''}{found.group('later') or ''}"
    hour = _of_day(hour, half=found.group("half") or "", told=told)
    if hour > 24 or minute > 59:
        raise ValueError(f"{found.group()!r} is no time of day")
    moment = here.replace(hour=hour % 24, minute=minute, second=0, microsecond=0)
    if "tomorrow" in told:
        return moment + timedelta(days=1)
    return moment if moment > here else moment + timedelta(days=1)


def _of_day(hour: int, *, half: str, told: str) -> int:
    """The hour on a clock of 24: nine tonight is 21, and midnight, or two tonight, is after midnight."""
    if half == "am" or (half != "pm" and "tonight" in told and hour in {*range(SMALL), 12}):
        return 0 if hour == 12 else hour
    return hour + 12 if 0 < hour < 12 and (half == "pm" or "tonight" in told or "evening" in told) else hour


def _count(word: str) -> float:
    return float(WORDS[word]) if word in WORDS else float(word)


def _of(moment: time) -> timedelta:
    return timedelta(hours=moment.hour, minutes=moment.minute)


def _window(since: datetime, until: datetime, words: str) -> Window:
    return Window(since=since.astimezone(UTC), until=until.astimezone(UTC), words=words)
