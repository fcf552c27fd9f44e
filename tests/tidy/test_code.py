"""Size, words and walls of the code: the rules of CONTRIBUTING.md that a machine can check.

Planted fault: a 501-line file, a 71-line function, a `utils.py`, an import of the store in a route file; each seen red.
"""

from __future__ import annotations

import ast
import re

import pytest

from tests.tidy.tree import parsed, python_files, text, tracked

FILE_LINES, FUNCTION_LINES = 500, 70
BANNED_NAMES = {"utils", "util", "helpers", "helper", "manager", "managers", "common", "misc"}
LEFT_BEHIND = re.compile(r"\b(" + "|".join(("TO" + "DO", "FIX" + "ME", "XX" + "X")) + r")\b")
FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)


@pytest.mark.parametrize("name", python_files("src/"))
def test_a_file_reads_in_one_sitting(name):
    assert text(name).count("\n") <= FILE_LINES, "split it by noun"


@pytest.mark.parametrize("name", python_files("src/"))
def test_a_function_fits_a_screen(name):
    long = [
        f"{node.name}: {(node.end_lineno or 0) - node.lineno + 1} lines"
        for node in ast.walk(parsed(name))
        if isinstance(node, FUNCTION) and (node.end_lineno or 0) - node.lineno + 1 > FUNCTION_LINES
    ]
    assert not long


@pytest.mark.parametrize("name", python_files("src/"))
def test_a_module_says_what_it_is_for(name):
    docstring = ast.get_docstring(parsed(name)) or ""
    assert len(docstring) >= 20 and any(mark in docstring for mark in ".:"), "purpose, callers, invariant, in sentences"


def test_no_file_or_class_is_named_after_nothing():
    files = [name for name in python_files() if set(name.removesuffix(".py").split("/")) & BANNED_NAMES]
    classes = [
        f"{name}: {node.name}"
        for name in python_files("src/")
        for node in ast.walk(parsed(name))
        if isinstance(node, ast.ClassDef) and re.search(r"(Manager|Helper|Utils?|Misc)$", node.name)
    ]
    assert not files + classes


def test_nothing_is_left_for_later():
    found = [
        f"{name}:{number}: {line.strip()[:100]}"
        for name in tracked()
        if name.endswith((".py", ".sh", ".ts", ".tsx", ".js", ".mjs")) or name in ("demo", "test")
        for number, line in enumerate(text(name).splitlines(), 1)
        if LEFT_BEHIND.search(line) or (name.startswith("src/") and "NotImplementedError" in line)
    ]
    assert not found, "finish it or open an issue"


def _imports(name):
    for node in ast.walk(parsed(name)):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def _route_files():
    return [name for name in python_files("src/panal/api/") if re.search(r"^routes = Routes\(", text(name), re.M)]


@pytest.mark.parametrize("name", _route_files())
def test_routes_translate_and_do_nothing_else(name):
    """Route files reach the store, programs and drivers through the verbs of a noun only."""
    banned = re.compile(r"^(panal\.cluster\.store|panal\.host|panal\..*\.drivers\.|subprocess|sqlite3|shutil)")
    assert not [module for module in _imports(name) if banned.match(module)]


def test_http_codes_live_in_the_api_alone():
    layers = [
        name for name in python_files("src/panal/") if not name.startswith(("src/panal/api/", "src/panal/web_front/"))
    ]
    found = [
        f"{name}: {module}"
        for name in layers
        for module in _imports(name)
        if module == "http" or module.startswith("starlette")
    ]
    assert not found


@pytest.mark.parametrize("name", python_files("tests/"))
def test_no_test_measures_time(name):
    """Figures belong to bench/: a check on a duration fails on a busy machine and proves nothing on an idle one."""
    clock = re.compile(r"assert .*(monotonic|perf_counter|time\.time)\(\) *-.*<")
    assert not [line for line in text(name).splitlines() if clock.search(line)]
