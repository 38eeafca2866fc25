"""What the documents say is what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from graph.domain import Remediation, RootCause
from server.settings import known_names

ROOT = Path(__file__).parents[2]


def first_column(text: str, heading: str) -> set[str]:
    section = text.split(heading, 1)[1].split("\n## ", 1)[0]
    return set(re.findall(r"^\| `([a-z_]+)` \|", section, flags=re.MULTILINE))


def test_every_root_cause_is_documented() -> None:
    text = (ROOT / "graph/taxonomy.md").read_text()
    assert first_column(text, "# Why a task failed") == {cause.value for cause in RootCause}


def test_every_remediation_is_documented() -> None:
    text = (ROOT / "graph/taxonomy.md").read_text()
    assert first_column(text, "## Remediations") == {one.value for one in Remediation}


@pytest.mark.parametrize("document", ["README.md", ".env.example", "CONTRIBUTING.md"])
def test_documents_name_only_settings_that_exist(document: str) -> None:
    named = set(re.findall(r"\bAIRMEDIC_[A-Z_]*[A-Z]\b", (ROOT / document).read_text()))
    demo = {name for name in named if name.startswith("AIRMEDIC_DEMO_")}
    assert named - known_names() - demo == set()


def test_the_example_environment_is_complete() -> None:
    text = (ROOT / ".env.example").read_text()
    assert {name for name in known_names() if name not in text} - {
        "AIRMEDIC_SPOOL_DIR",
        "AIRMEDIC_DEMO_DIR",
    } == set()


def test_every_make_target_of_the_readme_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(
        r"(?:^|`)make ([a-z0-9-]+)", (ROOT / "README.md").read_text(), flags=re.MULTILINE
    ):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
