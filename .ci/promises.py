#!/usr/bin/env python3
"""Fails when tests/README.md names a test, a file or a folder of tests that is gone, and when a file with tests is named nowhere.

`*` stands for any part of a name, `{a,b}` for both. A name with a `/`, or that of a file in tests/, is a path without its
`.rs`: from tests/, src/, examples/ or the top, or the end of such a path. Any other name is that of a test or a case.
"""
import fnmatch
import pathlib
import re
import sys

TREE = pathlib.Path(__file__).resolve().parent.parent
SOURCES = {
    str(file.relative_to(TREE).with_suffix("")): file.read_text()
    for top in ("src", "tests", "examples")
    for file in (TREE / top).rglob("*.rs")
    if "target" not in file.parts
}
PATHS = [*SOURCES, ".ci/api.py"]

# Functions that are tests; and cases: public functions, and what macros and tables name, alone on its line or as a text.
TESTS, CASES = {}, {}
for path, text in SOURCES.items():
    for name in re.findall(r"#\[test\](?:\s*#\[[^\n]*\])*\s*fn (\w+)", text):
        TESTS.setdefault(name, set()).add(path)
    if path.startswith("tests/"):
        for name in re.findall(r'\bpub(?:\(\w+\))? fn (\w+)|^\s*"?(\w*_\w*)"?,$|[(,]\s*"(\w*_\w*)"', text, re.M):
            CASES.setdefault("".join(name), set()).add(path)


def spelled_out(name):
    """The names for which one with `{a,b}` stands."""
    braces = re.search(r"\{([^}]*)\}", name)
    if not braces:
        return [name]
    parts = (name[: braces.start()] + part + name[braces.end() :] for part in braces[1].split(","))
    return [whole for part in parts for whole in spelled_out(part)]


def files_of(name):
    """The files that a path names, or that hold the test or the case."""
    end = name.removesuffix(".rs") + ("*" if name.endswith("/") else "")
    files = {path for path in PATHS if fnmatch.fnmatch("/" + path, "*/" + end)}
    if "/" not in name:
        files = {path for path in files if path.startswith(("tests/", ".ci/"))}
        files.update(path for known in (TESTS, CASES) for test in fnmatch.filter(known, name) for path in known[test])
    return files


wrong, shown = [], set()
for number, line in enumerate((TREE / "tests/README.md").read_text().splitlines(), 1):
    if not line.startswith("| "):
        continue
    for name in re.findall(r"`([^`]+)`", line.split(" | ")[-1]):
        for whole in spelled_out(name):
            files = files_of(whole)
            shown |= files
            if not files:
                wrong.append(f"tests/README.md:{number}: `{whole}` is gone")
for path in sorted({path for paths in TESTS.values() for path in paths} - shown):
    if path.startswith("tests/"):
        wrong.append(f"{path}.rs: its tests show no promise in tests/README.md")
print("\n".join(wrong) or "every test that tests/README.md names is there, and every file of tests is named")
sys.exit(bool(wrong))
