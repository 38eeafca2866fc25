"""The widgets of the page, named. What they do is wired in `blocks`."""

from __future__ import annotations

from dataclasses import dataclass, field

import gradio as gr

from gradio_ui.edit_form import FORMS
from gradio_ui.incident_list import FILTERS
from gradio_ui.markup import el, text
from gradio_ui.theme import asset

CONNECTING = el("p", "Connecting to Airmedic…", cls="am-quiet am-connecting")
LEVELS = ["All", "Info", "Warning", "Error"]


def html(**given: object) -> gr.HTML:
    """A place for our own markup; Gradio adds no style and puts it in untouched."""
    return gr.HTML(apply_default_css=False, padding=False, js_on_load=None, **given)  # type: ignore[arg-type]


def clickable(**given: object) -> gr.HTML:
    """The same, where a click on an incident says which."""
    return gr.HTML(apply_default_css=False, padding=False, js_on_load=asset("pick.js"), **given)  # type: ignore[arg-type]


@dataclass
class Front:
    """Signing in, and the line at the top."""

    token: gr.State
    mode: gr.HTML
    trouble: gr.HTML
    gate: gr.Column
    field: gr.Textbox
    enter: gr.Button
    said: gr.HTML


@dataclass
class ListPane:
    """The list of incidents."""

    chosen: gr.Radio
    rows: gr.HTML
    older: gr.Button
    limit: gr.State


@dataclass
class DetailPane:
    """One incident and the buttons that answer it. `shown` travels from the page with each click."""

    shown: gr.Textbox
    back: gr.Button
    said: gr.HTML
    head: gr.HTML
    asked: gr.HTML
    reload: gr.Button
    panel: gr.Group
    message: gr.Textbox
    approve: gr.Button
    edit: gr.Button
    reject: gr.Button
    respond: gr.Button
    editor: gr.Group
    forms: list[tuple[gr.Column, gr.HTML, gr.Textbox]]
    send_edit: gr.Button
    leave_edit: gr.Button
    closing: gr.Group
    close_reason: gr.Textbox
    close: gr.Button
    story: gr.HTML
    show_log: gr.Button
    log: gr.HTML


@dataclass
class LogPane:
    """The agent log."""

    words: gr.Textbox
    level: gr.Radio
    rows: gr.HTML
    events: gr.State
    after: gr.State


@dataclass
class Page:
    """The whole page."""

    front: Front
    main: gr.Column
    tabs: gr.Tabs
    listing: ListPane
    detail: DetailPane
    status: gr.HTML
    agent: LogPane
    timer: gr.Timer
    tab: gr.State
    news: gr.Textbox  #: changes when the page is to be drawn anew; hidden by the style
    drawn: gr.State  #: what each live part looked like, so that only changes are sent
    tab_items: list[tuple[str, gr.Tab]] = field(default_factory=list)


def make_page() -> Page:
    """Place the widgets. Call inside a `Blocks`."""
    token, tab, drawn = gr.State(""), gr.State("incidents"), gr.State({})
    with gr.Row(elem_classes="am-top", equal_height=True):
        html(value=_brand(), elem_classes="am-brand-box")
        mode = html(value=CONNECTING, elem_classes="am-mode-box")
    trouble = html(value="")
    with gr.Column(visible=False, elem_classes="am-gate") as gate:
        html(value=el("div", el("h2", "Sign in"), el("p", "This server asks for its API token.")))
        secret = gr.Textbox(label="API token", type="password", autofocus=True, elem_id="am-token")
        enter = gr.Button("Sign in", variant="primary")
        said = html(value="")
    front = Front(token, mode, trouble, gate, secret, enter, said)
    with gr.Column(visible=False, elem_classes="am-main") as main, gr.Tabs(selected="incidents") as tabs:
        with gr.Tab("Incidents", id="incidents") as first, gr.Row(elem_classes="am-split"):
            with gr.Column(scale=2, min_width=320, elem_classes="am-list-col"):
                listing = _list_pane()
            with gr.Column(scale=3, min_width=320, elem_classes="am-detail-col"):
                detail = _detail_pane()
        with gr.Tab("Status", id="status") as second:
            status = html(value="")
        with gr.Tab("Agent log", id="log") as third:
            agent = _log_pane()
    timer = gr.Timer(2, active=False)
    news = gr.Textbox(value="", elem_id="am-news")
    items = [("incidents", first), ("status", second), ("log", third)]
    return Page(front, main, tabs, listing, detail, status, agent, timer, tab, news, drawn, items)


def _brand() -> str:
    return el("div", el("b", "Airmedic"), el("span", "on call for Airflow"), cls="am-brand")


def _list_pane() -> ListPane:
    chosen = gr.Radio(
        list(FILTERS), value="Open", show_label=False, container=False, elem_classes="am-filter"
    )
    rows = clickable(value="", elem_id="am-incidents")
    older = gr.Button("Show older", size="sm", visible=False)
    return ListPane(chosen, rows, older, gr.State(50))


def _detail_pane() -> DetailPane:
    shown = gr.Textbox(value="{}", elem_id="am-shown")  # hidden by the style: its value must stay in the page
    back = gr.Button("All incidents", size="sm", elem_classes="am-back", visible=False)
    head, asked = html(value=""), html(value="")
    reload = gr.Button("Show the new question", visible=False)
    with gr.Group(visible=False, elem_classes="am-panel") as panel:
        message = gr.Textbox(
            label="Reason, or what you know (optional)", lines=2, max_lines=6, elem_id="am-message"
        )
        with gr.Row(elem_classes="am-buttons"):
            approve = gr.Button("Approve", variant="primary", elem_id="am-approve", min_width=120)
            edit = gr.Button("Edit", elem_id="am-edit", min_width=80)
            reject = gr.Button("Reject", elem_id="am-reject", min_width=80)
            respond = gr.Button("Diagnose again with this", elem_id="am-respond", min_width=120)
    said = html(value="", elem_id="am-said")
    with gr.Group(visible=False, elem_classes="am-panel") as editor:
        forms = [_form(number) for number in range(FORMS)]
        with gr.Row(elem_classes="am-buttons"):
            send_edit = gr.Button("Approve with these changes", variant="primary", elem_id="am-send-edit")
            leave_edit = gr.Button("Leave as it was")
    with gr.Group(visible=False, elem_classes="am-panel") as closing:
        close_reason = gr.Textbox(label="What you did (kept with the incident)", lines=2)
        close = gr.Button("Close this incident", variant="primary", elem_id="am-close")
    story = html(value="")
    show_log = gr.Button("Show the log of the failed try", size="sm", visible=False, elem_id="am-show-log")
    return DetailPane(
        shown,
        back,
        said,
        head,
        asked,
        reload,
        panel,
        message,
        approve,
        edit,
        reject,
        respond,
        editor,
        forms,
        send_edit,
        leave_edit,
        closing,
        close_reason,
        close,
        story,
        show_log,
        html(value=""),
    )


def _form(number: int) -> tuple[gr.Column, gr.HTML, gr.Textbox]:
    with gr.Column(visible=False) as column:
        hints = html(value="")
        typed = gr.Textbox(
            label=f"Arguments of action {number + 1} (JSON)", lines=4, max_lines=20, elem_classes="am-json"
        )
    return column, hints, typed


def _log_pane() -> LogPane:
    with gr.Row(elem_classes="am-search"):
        words = gr.Textbox(
            placeholder="Search: a cause, a rule, a name, #12", show_label=False, container=False, scale=3
        )
        level = gr.Radio(
            LEVELS, value="All", show_label=False, container=False, scale=2, elem_classes="am-filter"
        )
    rows = clickable(value=text(""), elem_id="am-agent-log")
    return LogPane(words, level, rows, gr.State([]), gr.State(0))
