"""The widgets of the page, named. What is read is put in by the page's own script, `assets/console.js`."""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr

from gradio_ui.incident_list import FILTERS
from gradio_ui.markup import Html, el, join
from gradio_ui.wording import plain
from graph.domain import RootCause, Severity

PAGES = {
    "chat": ("Chat", "c"),
    "incidents": ("Incidents", "i"),
    "status": ("Status", "s"),
    "timeline": ("Timeline", "t"),
    "log": ("Agent log", "l"),
    "metrics": ("Metrics", "m"),
}
WINDOWS = [("Day", "day"), ("Week", "week"), ("Month", "month")]
LEVELS = [("All", ""), ("Info", "info"), ("Warning", "warning"), ("Error", "error")]


def html(*parts: object, **given: object) -> gr.HTML:
    """A place for our own markup; Gradio adds no style and never touches it again."""
    value = join(parts)
    return gr.HTML(value, apply_default_css=False, padding=False, js_on_load=None, **given)  # type: ignore[arg-type]


def slot(name: str, *, tag: str = "div", cls: str = "", **attributes: object) -> Html:
    """An element that the script fills."""
    return el(tag, id=name, cls=cls, **attributes)


@dataclass
class Widgets:
    """The widgets that events hang on."""

    filter: gr.Radio
    search: gr.Textbox
    severity: gr.Dropdown
    cause: gr.Dropdown
    message: gr.Textbox
    approve: gr.Button
    edit: gr.Button
    reject: gr.Button
    respond: gr.Button
    send_edit: gr.Button
    leave_edit: gr.Button
    reload: gr.Button
    close_reason: gr.Textbox
    close: gr.Button
    reopen: gr.Button
    show_log: gr.Button
    words: gr.Textbox
    level: gr.Radio
    said: gr.Textbox
    send: gr.Button
    story_window: gr.Radio
    story: gr.Plot
    figures_window: gr.Radio
    outcomes: gr.Plot
    causes: gr.Plot
    draw_story: gr.Button  #: hidden by the style; the script presses them when a plot is to be drawn anew
    draw_figures: gr.Button


def make_page() -> Widgets:
    """Place the widgets. Call inside a `Blocks`."""
    made: dict[str, object] = {}
    html(_top(), elem_classes="am-top-box")
    with gr.Column(elem_id="am-page-chat", elem_classes="am-page"):
        made |= _chat()
    with gr.Column(elem_id="am-page-incidents", elem_classes="am-page"):
        made |= _incidents()
    with gr.Column(elem_id="am-page-status", elem_classes="am-page"):
        html(slot("am-status"))
    with gr.Column(elem_id="am-page-timeline", elem_classes="am-page"):
        made |= _timeline()
    with gr.Column(elem_id="am-page-log", elem_classes="am-page"):
        made |= _log()
    with gr.Column(elem_id="am-page-metrics", elem_classes="am-page"):
        made |= _metrics()
    return Widgets(**made)  # type: ignore[arg-type]


def _top() -> Html:
    brand = el("div", el("b", "Airmedic"), el("span", "on call for Airflow"), cls="am-brand")
    pages = [
        el("button", words, type="button", data_page=name, title=f"g then {key}")
        for name, (words, key) in PAGES.items()
    ]
    out = el("button", "Sign out", type="button", cls="am-small", id="am-sign-out")
    first = el("div", brand, slot("am-mode"), out, cls="am-top")
    nav = el("nav", *pages, cls="am-nav", aria_label="pages")
    trouble = slot("am-trouble", role="status", aria_live="polite")
    toast = slot("am-toast", role="status", aria_live="polite")
    return el("header", first, nav, trouble, toast, cls="am-front")


def _filter(choices: list[tuple[str, str]], value: str, name: str) -> gr.Radio:
    return gr.Radio(
        choices, value=value, show_label=False, container=False, elem_id=name, elem_classes="am-filter"
    )


def _incidents() -> dict[str, object]:
    with gr.Row(elem_classes="am-split"):
        with gr.Column(scale=2, min_width=300, elem_classes="am-list-col"):
            with gr.Row(elem_classes="am-filters"):
                chosen = _filter([(one, one) for one in FILTERS], "Open", "am-filter")
                search = gr.Textbox(
                    placeholder="Search names, causes, words",
                    show_label=False,
                    container=False,
                    elem_id="am-search",
                )
                severity = _choice("severity", [(plain(one.value), one.value) for one in Severity])
                cause = _choice("cause", [(plain(one.value), one.value) for one in RootCause])
            html(slot("am-incidents"))
        with gr.Column(scale=3, min_width=300, elem_classes="am-detail-col"):
            made = _detail()
    return {"filter": chosen, "search": search, "severity": severity, "cause": cause, **made}


def _choice(name: str, choices: list[tuple[str, str]]) -> gr.Dropdown:
    return gr.Dropdown(
        [(f"Any {name}", ""), *choices],
        value="",
        show_label=False,
        container=False,
        filterable=False,
        elem_id=f"am-{name}",
        elem_classes="am-choice",
        min_width=120,
    )


def _detail() -> dict[str, object]:
    back = el("button", "All incidents", type="button", cls="am-small am-back", id="am-back")
    html(back, slot("am-head"), slot("am-asked"))
    reload = gr.Button("Show the new question", elem_id="am-reload", elem_classes="am-when-held")
    with gr.Group(elem_classes="am-panel am-when-asks am-needs-operator", elem_id="am-decide"):
        message = _words("Reason, or what you know (optional)", "am-message")
        with gr.Row(elem_classes="am-buttons"):
            made = {
                "approve": gr.Button("Approve", variant="primary", elem_id="am-approve", min_width=110),
                "edit": gr.Button("Edit", elem_id="am-edit", min_width=80),
                "reject": gr.Button("Reject", elem_id="am-reject", min_width=80),
                "respond": gr.Button("Answer and diagnose again", elem_id="am-respond", min_width=120),
            }
    with gr.Group(elem_classes="am-panel am-when-editing am-needs-operator", elem_id="am-editor"):
        html(slot("am-form", tag="form", cls="am-form", autocomplete="off"))
        with gr.Row(elem_classes="am-buttons"):
            made["send_edit"] = gr.Button(
                "Approve with these changes", variant="primary", elem_id="am-send-edit", min_width=120
            )
            made["leave_edit"] = gr.Button("Leave as it was", elem_id="am-leave-edit", min_width=80)
    viewer = el("p", "Your role may look; an operator decides.", cls="am-quiet am-only-viewer am-when-asks")
    html(viewer, slot("am-said", role="status", aria_live="polite"))
    with gr.Group(elem_classes="am-panel am-when-escalated am-needs-operator", elem_id="am-closing"):
        reason = _words("What you did (kept with the incident)", "am-close-reason")
        with gr.Row(elem_classes="am-buttons"):
            made["close"] = gr.Button(
                "Close this incident", variant="primary", elem_id="am-close", min_width=120
            )
            made["reopen"] = gr.Button("Give it back to Airmedic", elem_id="am-reopen", min_width=120)
    html(slot("am-story"), slot("am-feedback", cls="am-when-shown am-needs-operator"))
    show_log = gr.Button(
        "Show the log of the failed try", size="sm", elem_id="am-show-log", elem_classes="am-when-shown"
    )
    html(slot("am-raw"))
    return {**made, "reload": reload, "message": message, "close_reason": reason, "show_log": show_log}


def _words(label: str, name: str) -> gr.Textbox:
    return gr.Textbox(label=label, lines=2, max_lines=6, elem_id=name)


def _timeline() -> dict[str, object]:
    with gr.Row(elem_classes="am-bar"):
        html(el("h2", "Failures and fixes"), elem_classes="am-title")
        window = _filter(WINDOWS, "day", "am-story-window")
    html(slot("am-story-empty"))
    story = gr.Plot(show_label=False, container=False, elem_id="am-plot-story", elem_classes="am-plot")
    html(el("p", "Scroll over the plot to zoom, drag to move, double-click to see all.", cls="am-quiet"))
    draw = gr.Button("draw", elem_id="am-draw-story", elem_classes="am-hidden")
    return {"story_window": window, "story": story, "draw_story": draw}


def _log() -> dict[str, object]:
    with gr.Row(elem_classes="am-bar"):
        words = gr.Textbox(
            placeholder="Search: a cause, a rule, a name, #12",
            show_label=False,
            container=False,
            elem_id="am-words",
        )
        level = _filter(LEVELS, "", "am-level")
    html(slot("am-log"))
    return {"words": words, "level": level}


def _metrics() -> dict[str, object]:
    with gr.Row(elem_classes="am-bar"):
        html(el("h2", "How it goes"), elem_classes="am-title")
        window = _filter(WINDOWS, "day", "am-window")
    html(slot("am-figures"))
    with gr.Row(elem_classes="am-plots"):
        with gr.Column(min_width=320, elem_classes="am-plot-box"):
            html(el("h3", "Ends over time"))
            outcomes = gr.Plot(
                show_label=False, container=False, elem_id="am-plot-outcomes", elem_classes="am-plot"
            )
        with gr.Column(min_width=320, elem_classes="am-plot-box"):
            html(el("h3", "Causes over time"))
            causes = gr.Plot(
                show_label=False, container=False, elem_id="am-plot-causes", elem_classes="am-plot"
            )
    draw = gr.Button("draw", elem_id="am-draw-figures", elem_classes="am-hidden")
    return {"figures_window": window, "outcomes": outcomes, "causes": causes, "draw_figures": draw}


def _chat() -> dict[str, object]:
    with gr.Row(elem_classes="am-split am-chat-split"):
        with gr.Column(scale=1, min_width=200, elem_classes="am-threads-col"):
            html(slot("am-threads"))
        with gr.Column(scale=4, min_width=300, elem_classes="am-talk-col"):
            html(slot("am-talk", role="log", aria_live="polite"), slot("am-hints"))
            with gr.Row(elem_classes="am-say"):
                said = gr.Textbox(
                    placeholder="Ask, or type / for commands",
                    show_label=False,
                    container=False,
                    lines=1,
                    max_lines=6,
                    scale=8,
                    elem_id="am-say",
                )
                send = gr.Button("Send", variant="primary", elem_id="am-send", scale=1, min_width=80)
    return {"said": said, "send": send}
