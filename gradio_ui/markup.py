"""HTML that cannot be broken out of: text is escaped where it enters, and only here."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from html import escape

CUT = "\N{HORIZONTAL ELLIPSIS}"
VOID = frozenset({"input", "wbr"})


class Html(str):
    """Markup that was made here; any other string is text and gets escaped."""

    __slots__ = ()


def text(value: object, *, limit: int = 0) -> Html:
    """Anything as inert text; control characters, by which text could hide or reorder, are replaced."""
    spelled = str(value)
    if limit and len(spelled) > limit:
        spelled = spelled[: limit - 1] + CUT
    if not spelled.isprintable():
        spelled = "".join(
            char if char in "\n\t" or char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in spelled
        )
    return Html(escape(spelled, quote=True))


def join(parts: Iterable[object], between: str = "") -> Html:
    """Several parts as one; what is not markup is escaped."""
    return Html(between.join(part if isinstance(part, Html) else text(part) for part in parts))


def el(tag: str, *children: object, cls: str = "", **attributes: object) -> Html:
    """One element. Children that are not markup are escaped, and so is every attribute.

    An underscore in an attribute's name is a hyphen; None leaves it out, True spells only the name.
    """
    given = {"class": cls or None, **attributes}
    spelled = "".join(
        f" {name.replace('_', '-')}" + ("" if value is True else f'="{text(value)}"')
        for name, value in given.items()
        if value is not None and value is not False
    )
    if tag in VOID:
        return Html(f"<{tag}{spelled}>")
    return Html(f"<{tag}{spelled}>{join(child for child in children if child is not None)}</{tag}>")


def moment(at: datetime | None, *, form: str = "full") -> Html:
    """A time, in UTC as written; the page shows it in the reader's zone. `form`: full, clock, age or left."""
    if at is None:
        return text("–")
    return el("time", f"{at:%Y-%m-%d %H:%M:%S} UTC", datetime=at.isoformat(), data_form=form)


def badge(words: object, tone: str) -> Html:
    """A short word in a colour: bad, warn, good, calm or busy."""
    return el("span", words, cls=f"am-badge am-{tone}")


def section(title: str, *children: object, cls: str = "", note: object = None) -> Html:
    """A titled block; nothing at all when it would be empty."""
    inside = [child for child in children if child]
    if not inside:
        return Html("")
    head = el("h3", title, el("small", note) if note else None)
    return el("section", head, *inside, cls=f"am-section {cls}".strip())


def facts(pairs: Iterable[tuple[str, object]]) -> Html:
    """Names and values under one another."""
    rows = [join([el("dt", name), el("dd", value)]) for name, value in pairs if value not in (None, "")]
    return el("dl", *rows, cls="am-facts") if rows else Html("")


def notice(words: object, *, tone: str = "calm", title: str = "") -> Html:
    """A sentence the reader should see."""
    return el("div", el("strong", title) if title else None, el("span", words), cls=f"am-notice am-{tone}")


def empty(title: str, *words: object) -> Html:
    """What stands where nothing is, and what to do."""
    return el("div", el("h3", title), el("p", *words), cls="am-empty")


def diff(unified: str) -> Html:
    """A unified diff, line by line."""
    lines = [el("span", line or " ", cls=_kind(line)) for line in unified.splitlines()]
    return el("pre", *lines, cls="am-diff", tabindex=0, aria_label="what changes") if lines else Html("")


def _kind(line: str) -> str:
    if line.startswith(("+++", "---", "@@")):
        return "am-diff-head"
    return {"+": "am-diff-add", "-": "am-diff-del"}.get(line[:1], "am-diff-same")
