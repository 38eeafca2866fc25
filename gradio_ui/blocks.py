"""The page wired to the desk. Every handler asks the server with the token of its own session."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

import gradio as gr
from fastapi import FastAPI

from gradio_ui.client import MovedOn, Refused, ServerSilent, SignInNeeded
from gradio_ui.desk import Desk, Detail, Shown
from gradio_ui.layout import DetailPane, Page, make_page
from gradio_ui.markup import notice
from gradio_ui.status_page import mode_line, status_page
from gradio_ui.theme import asset, make_theme
from gradio_ui.timeline import log_list
from graph.errors import AirmedicError

EVENTS_KEPT = 500  # lines of the agent log in one session
OLDER = 50  # incidents more
MOST = 200  # incidents in the list

Update = dict[Any, Any]
# Ours are not for programs (they have the API), take no queue, and show no spinner over what is read.
QUIET: dict[str, Any] = {"api_visibility": "private", "queue": False, "show_progress": "hidden"}
LOOK: dict[str, Any] = {"fn": None, **QUIET}


def make_application(desk: Desk, *, path: str) -> Any:
    """Gradio's application, to be served under `path`."""
    with gr.Blocks(title="Airmedic", analytics_enabled=False, fill_width=True) as blocks:
        Wiring(desk, make_page()).connect(blocks)
    holder = FastAPI()
    gr.mount_gradio_app(
        holder,
        blocks,
        path=path,
        theme=make_theme(),
        css=asset("console.css"),
        head=f"<script>{asset('console.js')}</script>",
        run_history=False,
        footer_links=[],
        show_error=False,
        ssr_mode=False,
        mcp_server=False,
        enable_monitoring=False,
    )
    route: Any = holder.router.routes[-1]
    return route.app


class Wiring:
    """The handlers. Each gives back only what changes on the page."""

    def __init__(self, desk: Desk, page: Page) -> None:
        self._desk = desk
        self._page = page

    def connect(self, blocks: gr.Blocks) -> None:
        """Tie every event to its handler."""
        page, front, listing = self._page, self._page.front, self._page.listing
        everything = self._everything()
        blocks.load(self._arrive, [front.token], everything, **QUIET)
        for event in (front.enter.click, front.field.submit):
            event(self._sign_in, [front.field], everything, **QUIET)
        live = [front.token, page.tab, listing.chosen, listing.limit, page.detail.shown, page.drawn]
        live += [page.agent.words, page.agent.level, page.agent.events, page.agent.after]
        page.timer.tick(self._pulse, live, [page.news], trigger_mode="once", **QUIET)
        page.news.change(self._refresh, live, everything, **QUIET)
        for changed in (listing.chosen.change, page.agent.words.change, page.agent.level.change):
            changed(self._refresh, live, everything, trigger_mode="always_last", **QUIET)
        for name, item in page.tab_items:
            chosen = gr.State(name)
            item.select(lambda one: one, [chosen], [page.tab], **QUIET).then(
                self._refresh, live, everything, **QUIET
            )
        listing.older.click(self._older, [listing.limit], [listing.limit], **QUIET).then(
            self._refresh, live, everything, **QUIET
        )
        for rows in (listing.rows, page.agent.rows):
            rows.click(self._open, [front.token], everything, **QUIET).then(
                self._refresh, live, everything, **QUIET
            )
        self._connect_detail(live, everything)

    def _connect_detail(self, live: list[Any], everything: list[Any]) -> None:
        token, pane = self._page.front.token, self._page.detail
        bound = [token, pane.shown, pane.message]
        for button, kind in ((pane.approve, "approve"), (pane.reject, "reject"), (pane.respond, "respond")):
            answered = button.click(self._answering(kind), bound, everything, trigger_mode="once", **QUIET)
            answered.then(self._refresh, live, everything, **QUIET).then(js=SEE_WHAT_WAS_SAID, **LOOK)
        pane.reload.click(self._reload, [token, pane.shown], everything, **QUIET)
        pane.back.click(self._leave, [], everything, js=LEAVE, **QUIET).then(
            self._refresh, live, everything, **QUIET
        )
        pane.edit.click(self._edit, [token, pane.shown], everything, **QUIET)
        pane.leave_edit.click(lambda: gr.update(visible=False), [], [pane.editor], **QUIET)
        typed = [form[2] for form in pane.forms]
        pane.send_edit.click(
            self._send_edit, [*bound, *typed], everything, trigger_mode="once", **QUIET
        ).then(self._refresh, live, everything, **QUIET).then(js=SEE_WHAT_WAS_SAID, **LOOK)
        pane.close.click(
            self._close, [token, pane.shown, pane.close_reason], everything, trigger_mode="once", **QUIET
        ).then(self._refresh, live, everything, **QUIET)
        pane.show_log.click(self._log, [token, pane.shown], everything, **QUIET)

    def _everything(self) -> list[Any]:
        page, front, listing, pane = self._page, self._page.front, self._page.listing, self._page.detail
        forms = [one for form in pane.forms for one in form]
        own = [
            front.token,
            front.mode,
            front.trouble,
            front.gate,
            front.field,
            front.said,
            page.main,
            page.tabs,
        ]
        rest = [
            listing.rows,
            listing.older,
            page.status,
            page.agent.rows,
            page.agent.events,
            page.agent.after,
        ]
        detail = [
            pane.shown,
            pane.back,
            pane.said,
            pane.head,
            pane.asked,
            pane.reload,
            pane.panel,
            pane.message,
        ]
        detail += [
            pane.approve,
            pane.editor,
            pane.closing,
            pane.close_reason,
            pane.story,
            pane.show_log,
            pane.log,
        ]
        return [*own, *rest, *detail, *forms, page.timer, page.drawn]

    # --- arriving ---------------------------------------------------------------------------------------

    async def _arrive(self, token: str, request: gr.Request) -> Update:
        """The page opened: go on at once where no token is asked."""
        number = _number(dict(request.query_params).get("incident"))
        return await self._enter(token, number=number, first=True)

    async def _sign_in(self, typed: str, request: gr.Request) -> Update:
        number = _number(dict(request.query_params).get("incident"))
        return await self._enter(typed.strip(), number=number, first=False)

    async def _enter(self, token: str, *, number: int | None, first: bool) -> Update:
        page, front = self._page, self._page.front
        try:
            status = await self._desk.client.status(token)
        except SignInNeeded:
            said = "" if first else notice("That is not this server's token.", tone="bad")
            return {front.gate: gr.update(visible=True), front.said: said, front.mode: ""}
        except ServerSilent as exc:
            return {front.trouble: _silent(exc), page.timer: gr.Timer(active=True)}
        update: Update = {
            front.token: token,
            front.field: "",
            front.gate: gr.update(visible=False),
            front.mode: mode_line(status),
            page.main: gr.update(visible=True),
            page.timer: gr.Timer(active=True),
        }
        rows = await self._desk.incidents(token, chosen="Open", selected=number, limit=OLDER)
        update[page.listing.rows] = rows
        return {**update, **await self._show(token, Shown(number=number))}

    # --- looking ----------------------------------------------------------------------------------------

    async def _pulse(self, *seen: Any) -> Any:
        """Every tick of every console: asks whether anything changed, for Gradio is slow to send a page."""
        update = await self._refresh(*seen)
        return gr.skip() if len(update) == 1 else uuid4().hex

    async def _refresh(
        self,
        token: str,
        tab: str,
        chosen: str,
        limit: int,
        spelled: str,
        drawn: dict[str, int],
        words: str,
        level: str,
        events: list[Any],
        after: int,
    ) -> Update:
        page, shown = self._page, Shown.read(spelled)
        whole: Update = {}
        try:
            status = await self._desk.client.status(token)
            fresh: Update = {page.front.mode: mode_line(status), page.front.trouble: ""}
            fresh |= {page.main: True, page.front.gate: False}
            if tab == "status":
                fresh[page.status] = status_page(status)
            elif tab == "log":
                fresh |= await self._agent_log(token, words, level, events, after)
            else:
                number = shown.number
                rows = await self._desk.incidents(token, chosen=chosen, selected=number, limit=limit)
                fresh[page.listing.rows] = rows
                fresh[page.listing.older] = "am-more" in rows and limit < MOST
                one = self._detail_update(await self._desk.detail(token, shown))
                # Whole or not at all: what is read and what the buttons answer must be one incident.
                if drawn.get("detail") != (mark := hash(str(list(one.values())))):
                    drawn = {**drawn, "detail": mark}
                    whole = one
        except SignInNeeded:
            fresh = {page.main: False, page.front.gate: True, page.front.mode: ""}
        except ServerSilent as exc:
            fresh = {page.front.trouble: _silent(exc)}
        except Refused as exc:
            fresh = {page.detail.said: notice(str(exc), tone="warn")}
        marks = _marks(fresh)
        # Only what looks different from what was sent before; the rest does not flicker.
        changed = {part: value for part, value in fresh.items() if drawn.get(_key(part)) != marks[_key(part)]}
        return {**_visible(changed), **_visible(whole), page.drawn: {**drawn, **marks}}

    async def _agent_log(self, token: str, words: str, level: str, events: list[Any], after: int) -> Update:
        agent = self._page.agent
        new, after = await self._desk.client.events(token, after=after, keep=EVENTS_KEPT)
        kept = [*events, *new][-EVENTS_KEPT:]
        update: Update = {agent.rows: log_list(kept, words=words, level=level)}
        return update | {agent.events: kept, agent.after: after} if new else update

    @staticmethod
    def _older(limit: int) -> int:
        return min(limit + OLDER, MOST)

    # --- one incident -----------------------------------------------------------------------------------

    async def _open(self, token: str, event: gr.EventData) -> Update:
        number = _number(event._data.get("incident") if isinstance(event._data, dict) else None)
        update = await self._show(token, Shown(number=number))
        return {**update, self._page.tabs: gr.Tabs(selected="incidents")}

    async def _reload(self, token: str, spelled: str) -> Update:
        return await self._show(token, Shown(number=Shown.read(spelled).number))

    async def _leave(self) -> Update:
        return await self._show("", Shown())

    async def _show(self, token: str, shown: Shown) -> Update:
        """An incident afresh: nothing of the one before stays, neither words nor forms."""
        pane = self._page.detail
        clean: Update = {pane.said: "", pane.message: "", pane.close_reason: "", pane.log: ""}
        clean |= {pane.editor: False, self._page.drawn: {}}
        try:
            clean |= self._detail_update(await self._desk.detail(token, shown))
        except AirmedicError as exc:
            clean |= self._detail_update(Detail(Shown()))
            clean[pane.said] = notice(str(exc), tone="warn")
        return _visible(clean)

    def _detail_update(self, detail: Detail) -> Update:
        pane, number = self._page.detail, detail.shown.number
        update: Update = {
            pane.shown: detail.shown.model_dump_json(),
            pane.back: number is not None,
            pane.head: detail.head,
            pane.asked: detail.asked,
            pane.story: detail.story,
            pane.reload: detail.shown.held,
            pane.panel: detail.asks,
            pane.closing: detail.can_close,
            pane.show_log: number is not None,
        }
        if detail.asks:
            update[pane.approve] = f"Approve #{number}"
        else:
            update[pane.editor] = False
        return update

    async def _log(self, token: str, spelled: str) -> Update:
        number, pane = Shown.read(spelled).number, self._page.detail
        if number is None:
            return {pane.log: ""}
        return await self._safely(pane, self._desk.log(token, number), into=pane.log)

    # --- deciding ---------------------------------------------------------------------------------------

    def _answering(self, kind: str) -> Callable[[str, str, str], Awaitable[Update]]:
        async def answer(token: str, spelled: str, message: str) -> Update:
            shown = Shown.read(spelled)
            return await self._decided(shown, self._desk.answer(token, shown, kind, message=message))

        return answer

    async def _send_edit(self, token: str, spelled: str, message: str, *typed: str) -> Update:
        shown = Shown.read(spelled)
        return await self._decided(shown, self._desk.edit(token, shown, list(typed), message=message))

    async def _close(self, token: str, spelled: str, reason: str) -> Update:
        shown = Shown.read(spelled)
        return await self._decided(shown, self._desk.close(token, shown, reason))

    async def _decided(self, shown: Shown, doing: Awaitable[Any]) -> Update:
        """Say what became of it. A taken answer clears the question from the page, so that none is held."""
        pane = self._page.detail
        update = await self._safely(pane, doing, into=pane.said)
        if "am-good" in str(update.get(pane.said, "")):
            update |= {pane.shown: Shown(number=shown.number).model_dump_json(), pane.message: ""}
            update |= {pane.panel: gr.update(visible=False), pane.editor: gr.update(visible=False)}
            update |= {pane.asked: "", pane.closing: gr.update(visible=False), self._page.drawn: {}}
        return update

    async def _edit(self, token: str, spelled: str) -> Update:
        pane = self._page.detail
        try:
            forms = await self._desk.forms(token, Shown.read(spelled))
        except AirmedicError as exc:
            return {pane.said: notice(f"{exc}.", tone="warn")}
        update: Update = {pane.editor: gr.update(visible=True), pane.said: ""}
        for place, (column, hints, typed) in enumerate(pane.forms):
            form = forms[place] if place < len(forms) else None
            update[column] = gr.update(visible=form is not None)
            update |= {hints: form.hints if form else "", typed: form.text if form else ""}
        return update

    @staticmethod
    async def _safely(pane: DetailPane, doing: Awaitable[Any], *, into: Any) -> Update:
        try:
            return {into: await doing}
        except (ServerSilent, SignInNeeded, Refused, MovedOn) as exc:
            return {pane.said: notice(str(exc), tone="bad", title="That did not work.")}


SEE_WHAT_WAS_SAID = """() => document.querySelector("#am-said")?.scrollIntoView({block: "center"})"""
LEAVE = (
    "() => { const here = new URL(window.location); here.searchParams.delete('incident'); "
    "window.history.replaceState(null, '', here); }"
)


def _key(component: Any) -> str:
    return str(component._id)


def _marks(update: Update) -> dict[str, int]:
    return {_key(component): hash(str(value)) for component, value in update.items()}


def _visible(update: Update) -> Update:
    return {
        component: gr.update(visible=value) if isinstance(value, bool) else value
        for component, value in update.items()
    }


def _number(given: object) -> int | None:
    spelled = str(given)
    return int(spelled) if spelled.isdigit() and len(spelled) < 10 and int(spelled) > 0 else None


def _silent(error: ServerSilent) -> str:
    return notice(f"{error} The page goes on by itself when it is back.", tone="bad", title="No connection.")
