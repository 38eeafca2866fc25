"""`graph`, `tools`, `server` are everybody's names: nobody installed may provide them."""

from __future__ import annotations

from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OURS = ("graph", "nodes", "tools", "server", "gradio_ui", "evals", "cli")


@pytest.mark.parametrize("name", OURS)
def test_no_other_distribution_provides_our_top_level_names(name: str) -> None:
    assert set(packages_distributions().get(name, [])) <= {"airmedic"}
    assert (ROOT / name / "__init__.py").exists()


def test_the_airflow_folder_is_not_a_package() -> None:
    assert not (ROOT / "airflow" / "__init__.py").exists()
