"""How the console looks: a calm theme on system fonts, light and dark. Nothing is fetched from elsewhere."""

from __future__ import annotations

from importlib.resources import files

import gradio as gr
from gradio.themes.utils import colors, sizes

TEAL = colors.Color(
    name="airmedic",
    c50="#eefaf8",
    c100="#d3f2ed",
    c200="#a9e4dc",
    c300="#74cfc5",
    c400="#3fb2a7",
    c500="#17958a",
    c600="#0d786f",
    c700="#0e605a",
    c800="#104d49",
    c900="#11403d",
    c950="#042624",
)
SLATE = colors.Color(
    name="airmedic-slate",
    c50="#f6f8f8",
    c100="#ecf0f0",
    c200="#dce3e3",
    c300="#c0cbcc",
    c400="#8fa0a2",
    c500="#66787b",
    c600="#4c5d60",
    c700="#364547",
    c800="#222e30",
    c900="#182123",
    c950="#101617",
)


def make_theme() -> gr.themes.Base:
    """Gradio's own widgets in our colours."""
    theme = gr.themes.Base(
        primary_hue=TEAL,
        secondary_hue=TEAL,
        neutral_hue=SLATE,
        spacing_size=sizes.spacing_md,
        radius_size=sizes.radius_md,
        text_size=sizes.text_md,
        font=("ui-sans-serif", "system-ui", "sans-serif"),
        font_mono=("ui-monospace", "SFMono-Regular", "monospace"),
    )
    return theme.set(
        body_background_fill="*neutral_50",
        body_background_fill_dark="*neutral_950",
        background_fill_primary_dark="*neutral_900",
        block_background_fill="white",
        block_background_fill_dark="*neutral_900",
        block_border_width="1px",
        block_shadow="none",
        block_shadow_dark="none",
        input_background_fill="white",
        input_background_fill_dark="*neutral_950",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_dark="*primary_600",
        button_primary_background_fill_hover_dark="*primary_500",
        button_primary_text_color="white",
        button_secondary_background_fill="white",
        button_secondary_background_fill_dark="*neutral_800",
        button_secondary_border_color="*neutral_300",
        button_secondary_border_color_dark="*neutral_700",
        button_border_width="1px",
    )


def asset(name: str) -> str:
    """A file of the page."""
    return (files("gradio_ui") / "assets" / name).read_text()
