"""The files that a Compose file names."""

from __future__ import annotations

import pytest

from autostart_proxy.backends.compose.references import (
    Include,
    References,
    Unreadable,
    references,
)


def test_a_file_that_names_none_is_not_even_parsed() -> None:
    assert references("services: {web: {image: x}}") == References()
    assert references("]: no YAML [") == References()


@pytest.mark.parametrize(
    ("written", "names"),
    [
        ("env_file: a.env", ["a.env"]),
        ("env_file: [a.env, ../b.env]", ["a.env", "../b.env"]),
        ("env_file: [{path: a.env, required: false}, b.env]", ["a.env", "b.env"]),
        ("env_file: {path: a.env, format: raw}", ["a.env"]),
        ("label_file: [a.labels]", ["a.labels"]),
        ("env_file: '${STAGE:-dev}.env'", ["${STAGE:-dev}.env"]),
        ("env_file: !override [a.env]", ["a.env"]),
        ("env_file: !reset null", ["null"]),
    ],
)
def test_env_files_are_found_however_they_are_written(written: str, names: list[str]) -> None:
    assert references(f"services:\n  web:\n    {written}\n").values == tuple(names)


def test_what_is_merged_in_by_an_anchor_counts() -> None:
    text = """
x-common: &common
  env_file: common.env
services:
  web: {<<: *common, extends: {file: base.yml, service: web}}
  job: {<<: *common, extends: web}
"""
    assert references(text) == References(extended=("base.yml",), values=("common.env",))


def test_an_alias_that_holds_itself_ends() -> None:
    assert references("a: &a {env_file: x, b: *a}").values == ("x",)


@pytest.mark.parametrize(
    ("written", "include"),
    [
        ("sub/web.yml", Include(("sub/web.yml",))),
        ("{path: a.yml}", Include(("a.yml",))),
        (
            "{path: [a.yml, b.yml], project_directory: sub, env_file: [x.env]}",
            Include(("a.yml", "b.yml"), "sub", ("x.env",)),
        ),
    ],
)
def test_includes_are_found_with_what_is_set_for_them(written: str, include: Include) -> None:
    assert references(f"include:\n  - {written}\n").includes == (include,)


def test_only_the_files_own_include_is_one() -> None:
    text = "include: a.yml\nservices: {web: {environment: {include: not this}}}"
    assert references(text).includes == (Include(("a.yml",)),)


def test_every_document_of_a_file_counts() -> None:
    assert references("include: [a.yml]\n---\nenv_file: x\n---\n") == References(
        includes=(Include(("a.yml",)),), values=("x",)
    )


def test_text_that_cannot_be_read_is_told() -> None:
    with pytest.raises(Unreadable):
        references("env_file: [")
