"""Benchmarks log errors only: a line for each step would be part of what is measured."""

from __future__ import annotations

import logging

import structlog


def quiet() -> None:
    """Log errors and nothing below."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
