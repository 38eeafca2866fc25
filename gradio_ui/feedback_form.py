"""The form in which a person rates an incident's handling."""

from __future__ import annotations

from gradio_ui.markup import Html, el, join
from gradio_ui.wording import plain
from graph.domain import RootCause
from server.schemas import IncidentDetailOut

RATINGS = {1: "useless", 2: "poor", 3: "fair", 4: "good", 5: "just right"}


def feedback_form(found: IncidentDetailOut) -> Html:
    """Nothing before there is a cause to rate."""
    if found.diagnosis is None:
        return Html("")
    stars = [_radio("rating", str(value), f"{value}", title=words) for value, words in RATINGS.items()]
    named = plain(found.diagnosis.root_cause.value)
    right = [_radio("cause_right", "yes", "right"), _radio("cause_right", "no", "wrong")]
    form = el(
        "form",
        el(
            "div",
            el("span", "How well was it handled?", cls="am-label"),
            el("span", *stars, cls="am-choices"),
        ),
        el(
            "div",
            el("span", f"The cause, {named}, was", cls="am-label"),
            el("span", *right, cls="am-choices"),
        ),
        el("label", el("span", "It was instead", cls="am-label"), _causes(), cls="am-field am-if-wrong"),
        el(
            "label",
            el("span", "Anything else (optional)", cls="am-label"),
            el("input", type="text", name="comment", maxlength=2000),
            cls="am-field",
        ),
        el("div", el("button", "Send feedback", cls="am-button"), cls="am-switches"),
        cls="am-rate",
        data_feedback=found.id,
        data_key=f"rate-{found.id}",
    )
    told = "It stands on the incident, and memory hears it."
    return el(
        "details", el("summary", el("strong", "Rate this"), " ", el("small", told)), form, cls="am-section"
    )


def _radio(name: str, value: str, words: str, *, title: str = "") -> Html:
    box = el("input", type="radio", name=name, value=value, required=name == "rating")
    return el("label", box, el("span", words), cls="am-choice-one", title=title or None)


def _causes() -> Html:
    rows = [el("option", plain(one.value), value=one.value) for one in RootCause]
    return el("select", join([el("option", "not sure", value=""), *rows]), name="cause")
