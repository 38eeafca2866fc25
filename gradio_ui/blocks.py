"""The page's widgets tied to its script, and the plots to their data.

What is read, and what is decided, goes through the routes in `door`: nothing of a person is kept in
Gradio's sessions, so a page goes on where it was after the server was started again.
"""

from __future__ import annotations

import json
from typing import Any

import gradio as gr
from fastapi import FastAPI
from gradio.components.plot import PlotData

from gradio_ui.client import ConsoleClient
from gradio_ui.door import COOKIE
from gradio_ui.layout import Widgets, make_page
from gradio_ui.plots import Spec, causes_plot, is_empty, outcomes_plot, story_plot
from gradio_ui.theme import asset, make_theme
from graph.errors import AirmedicError
from server.schemas import IncidentOut

STORY_PAGES = 3  # of the incident list, 200 each: more points than can be told apart
STORY_LINES = 1000  # of the agent log
RARELY = 1.0  # seconds

ICON = (
    '<link rel="icon" href="data:image/svg+xml,'
    "%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E"
    "%3Ccircle cx='8' cy='8' r='6' fill='%230d786f'/%3E%3C/svg%3E\">"
)
# Ours are not for programs (they have the API), take no queue, and show no spinner over what is read.
QUIET: dict[str, Any] = {"api_visibility": "private", "queue": False, "show_progress": "hidden"}


def make_application(client: ConsoleClient, *, path: str) -> Any:
    """Gradio's application, to be served under `path`."""
    with gr.Blocks(title="Airmedic", analytics_enabled=False, fill_width=True) as blocks:
        widgets = make_page()
        _tie(widgets, blocks)
        _plot(widgets, client)
    holder = FastAPI()
    gr.mount_gradio_app(
        holder,
        blocks,
        path=path,
        theme=make_theme(),
        head=_head(),
        run_history=False,
        footer_links=[],
        show_error=False,
        ssr_mode=False,
        mcp_server=False,
        enable_monitoring=False,
    )
    # Nothing here takes Gradio's queue; left alone its loops would wake a thousand times a second.
    blocks._queue.sleep_when_free = blocks._queue.progress_update_sleep_when_free = RARELY
    route: Any = holder.router.routes[-1]
    return route.app


def _head() -> str:
    """Our own style and scripts. Gradio's `css` is not used: it rewrites selectors and so their weight."""
    styles = "".join(f"<style>{asset(name)}</style>" for name in ("console.css", "shown.css"))
    scripts = "".join(f"<script>{asset(name)}</script>" for name in ("morph.js", "console.js", "chat.js"))
    return ICON + styles + scripts


def _tie(on: Widgets, blocks: gr.Blocks) -> None:
    """Every widget to what the script does."""
    inputs = [
        on.filter,
        on.search,
        on.severity,
        on.cause,
        on.words,
        on.level,
        on.figures_window,
        on.story_window,
    ]
    blocks.load(None, None, inputs, js="() => airmedic.arrive()", **QUIET)
    for widget, name in (
        (on.filter, "filter"),
        (on.search, "q"),
        (on.severity, "severity"),
        (on.cause, "cause"),
        (on.words, "words"),
        (on.level, "level"),
    ):
        widget.change(None, [widget], None, js=f"(value) => airmedic.choose('{name}', value)", **QUIET)
    for button, deed in ((on.approve, "approve"), (on.reject, "reject"), (on.respond, "respond")):
        button.click(None, [on.message], [on.message], js=f"(m) => airmedic.decide('{deed}', m)", **QUIET)
    on.send_edit.click(None, [on.message], [on.message], js="(m) => airmedic.decide('edit', m)", **QUIET)
    on.edit.click(None, js="() => airmedic.edit(true)", **QUIET)
    on.leave_edit.click(None, js="() => airmedic.edit(false)", **QUIET)
    on.reload.click(None, js="() => airmedic.reload()", **QUIET)
    on.show_log.click(None, js="() => airmedic.showLog()", **QUIET)
    for button, deed in ((on.close, "close"), (on.reopen, "reopen")):
        button.click(
            None, [on.close_reason], [on.close_reason], js=f"(m) => airmedic.decide('{deed}', m)", **QUIET
        )
    for event in (on.send.click, on.said.submit):
        event(None, [on.said], [on.said], js="(words) => airmedic.say(words)", **QUIET)
    on.said.input(None, [on.said], None, js="(words) => airmedic.hint(words)", **QUIET)


def _plot(on: Widgets, client: ConsoleClient) -> None:
    plots = Plots(client)
    for event in (on.draw_story.click, on.story_window.change):
        event(plots.story, [on.story_window], [on.story], trigger_mode="always_last", **QUIET)
    on.figures_window.change(
        None, [on.figures_window], None, js="(v) => airmedic.choose('window', v)", **QUIET
    )
    for event in (on.draw_figures.click, on.figures_window.change):
        both = [on.outcomes, on.causes]
        event(plots.figures, [on.figures_window], both, trigger_mode="always_last", **QUIET)


class Plots:
    """Draws the plots of whoever asks, with the token of their own sign-in."""

    def __init__(self, client: ConsoleClient) -> None:
        self._client = client

    async def story(self, window: str, request: gr.Request) -> Any:
        """Failures and fixes over time."""
        token = _token(request)
        try:
            summary = await self._client.summary(token, window)
            incidents = await self._incidents(token, summary.since.isoformat())
            query = [("node", "fix"), ("order", "newest"), ("since", summary.since.isoformat())]
            fixes = await self._client.log_page(token, [*query, ("limit", STORY_LINES)])
        except AirmedicError:
            return gr.skip()  # the page says by itself that the server is away
        return _drawn(story_plot(incidents, fixes.items, summary))

    async def _incidents(self, token: str, since: str) -> list[IncidentOut]:
        found: list[IncidentOut] = []
        cursor: str | None = ""
        for _ in range(STORY_PAGES):
            query: list[tuple[str, str | int]] = [("since", since), ("limit", 200)]
            page = await self._client.incidents(token, [*query, *([("cursor", cursor)] if cursor else [])])
            found += page.items
            if (cursor := page.next) is None:
                break
        return found

    async def figures(self, window: str, request: gr.Request) -> Any:
        """Ends and causes over time."""
        try:
            summary = await self._client.summary(_token(request), window)
        except AirmedicError:
            return gr.skip(), gr.skip()
        return _drawn(outcomes_plot(summary)), _drawn(causes_plot(summary))


def _token(request: gr.Request) -> str:
    found = request.cookies.get(COOKIE, "")
    return str(found)


def _drawn(spec: Spec) -> PlotData | None:
    return None if is_empty(spec) else PlotData(type="altair", plot=json.dumps(spec))
