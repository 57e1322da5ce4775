"""What the documents say of the repository is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_tests_links_and_files_of_nginx_that_a_document_names_exist(document: Path) -> None:
    text = document.read_text("utf-8")
    linked = re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", text)
    named = re.findall(r"`(tests/[\w/]+\.py)`", text)
    shipped = re.findall(r"`(?:nginx/)?((?:conf\.d|snippets|sites-available)/[\w.-]+\.conf)`", text)
    assert [link for link in linked if not (document.parent / link).exists()] == []
    assert [name for name in named if not (ROOT / name).is_file()] == []
    assert [name for name in shipped if not (ROOT / "nginx" / name).is_file()] == []
