"""The figures of a window: rates, times and cost. What changes over time is plotted beside them."""

from __future__ import annotations

from gradio_ui.markup import Html, el, empty, join, section
from gradio_ui.wording import OUTCOME, duration, plain
from graph.domain import Outcome
from server.schemas_overview import AgentFigures, BusinessFigures, SpreadOut, SummaryOut

CAUSES = 8  # the most frequent
TIMES = {
    "detect": ("Detect", "from the failure to its incident"),
    "diagnose": ("Diagnose", "from the incident to its cause"),
    "fix": ("Fix", "from the cause to the first fix, people included"),
    "recover": ("Recover", "from the failure to all well again"),
    "decide": ("Decide", "from the question to a person's answer"),
}


def figures_page(summary: SummaryOut) -> Html:
    """Everything but the plots."""
    if not summary.pipeline.incidents:
        return empty(
            "Nothing failed in this window",
            f"No incident was opened in the last {summary.window}. ",
            "A longer window may know more.",
        )
    agent = summary.agent
    rates = el(
        "div",
        _rate(summary.pipeline.success_rate, "of the pipelines' last runs succeeded", "good"),
        _rate(agent.heal_rate, "healed, of what could be healed", "good"),
        _number(f"{summary.pipeline.incidents:,}", "incidents opened"),
        _number(f"{agent.approvals_answered:,} / {agent.approvals_asked:,}", "questions answered by people"),
        cls="am-tiles am-wide",
    )
    cut = "" if summary.complete else "the newest incidents of the window only"
    return join(
        [
            section("At one look", rates, note=cut),
            el(
                "div",
                _outcomes(agent),
                _times(agent),
                _causes(summary),
                _cost(summary.business),
                cls="am-two",
            ),
        ]
    )


def _rate(value: float | None, words: str, tone: str) -> Html:
    return _number(
        "not known" if value is None else f"{value:.0%}", words, tone if value is not None else "none"
    )


def _number(value: str, words: str, tone: str = "ink") -> Html:
    return el("div", el("b", value), el("span", words), cls=f"am-tile am-{tone}")


def _outcomes(agent: AgentFigures) -> Html:
    most = max([*agent.outcomes.values(), agent.open, 1])
    rows = [_bar(OUTCOME[one][0], agent.outcomes.get(one, 0), most, OUTCOME[one][1]) for one in Outcome]
    rows.append(_bar("Still open", agent.open, most, "busy"))
    return section("How they ended", el("ul", *rows, cls="am-bars"), note="only healed counts as a heal")


def _bar(name: str, value: float, most: float, tone: str, words: str = "") -> Html:
    share = round(100 * value / most) if most else 0
    meter = el("meter", value=share, min=0, max=100, cls=f"am-{tone}", aria_hidden="true")
    return el("li", el("span", name), meter, el("b", words or f"{value:,.0f}"), data_key=name)


def _times(agent: AgentFigures) -> Html:
    spreads = {name: getattr(agent, name) for name in TIMES}
    known = {name: one for name, one in spreads.items() if one.count and one.p50 is not None}
    if not known:
        return section("How long it took", el("p", "Nothing was measured in this window.", cls="am-quiet"))
    most = max(one.p95 or one.p50 for one in known.values())
    rows = [_time(name, one, most) for name, one in known.items()]
    return section("How long it took", el("ul", *rows, cls="am-bars am-times"), note="half of them, and 95 %")


def _time(name: str, spread: SpreadOut, most: float) -> Html:
    title, told = TIMES[name]
    half, nearly = spread.p50 or 0.0, spread.p95 or spread.p50 or 0.0
    words = f"{duration(round(half, 1))} · {duration(round(nearly, 1))}"
    return el("li", _label(title, told), _meter(half, most), el("b", words), data_key=name)


def _label(title: str, told: str) -> Html:
    return el("span", title, el("small", told))


def _meter(value: float, most: float) -> Html:
    # Times span from seconds to days: by their roots, short ones can still be seen.
    share = round(100 * (value / most) ** 0.5) if most else 0
    return el("meter", value=max(share, 2), min=0, max=100, cls="am-busy", aria_hidden="true")


def _causes(summary: SummaryOut) -> Html:
    ranked = sorted(summary.pipeline.causes.items(), key=lambda one: -one[1])
    if not ranked:
        return Html("")
    rows = [_bar(plain(cause.value), count, ranked[0][1], "busy") for cause, count in ranked[:CAUSES]]
    rest = sum(count for _, count in ranked[CAUSES:])
    rows += [_bar("All others", rest, ranked[0][1], "calm")] if rest else []
    return section("Causes", el("ul", *rows, cls="am-bars"))


def _cost(business: BusinessFigures) -> Html:
    if not business.model_asked:
        return section("Language model", el("p", "It was not asked in this window.", cls="am-quiet"))
    price = "not known" if business.cost_usd is None else f"${business.cost_usd:,.2f}"
    tiles = el(
        "div",
        _number(price, "cost"),
        _number(f"{business.model_asked:,}", "times asked"),
        _number(f"{business.input_tokens + business.output_tokens:,}", "tokens"),
        cls="am-tiles",
    )
    return section("Language model", tiles)
