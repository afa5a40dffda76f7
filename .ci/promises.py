#!/usr/bin/env python3
"""Fails when tests/README.md names a test, or a program of tests, that is gone. `*` stands for any part of a name."""
import fnmatch
import pathlib
import re
import sys

TREE = pathlib.Path(__file__).resolve().parent.parent
SOURCES = [file for top in ("src", "tests", "examples") for file in (TREE / top).rglob("*.rs")]

# The functions and modules, the cases that macros and tables name, and the files and folders that hold tests.
known = {file.name for file in (TREE / ".ci").iterdir()}
for file in SOURCES:
    text = file.read_text()
    known.update(re.findall(r"\b(?:fn|mod)\s+(\w+)", text))
    known.update(re.findall(r"^\s*(\w+)(?:,|\s*[;:=]|\(|$)", text, re.M))
    known.update(re.findall(r'"(\w+)"', text))
    known.update((file.name, file.stem, file.parent.name))

gone = []
for number, line in enumerate((TREE / "tests/README.md").read_text().splitlines(), 1):
    cells = line.split(" | ")
    if not line.startswith("| ") or len(cells) < 2:
        continue
    for name in re.findall(r"`([^`]+)`", cells[1]):
        last = name.strip("./").rsplit("::", 1)[-1].rsplit("/", 1)[-1]
        if re.fullmatch(r"[\w*.]+", last) and not fnmatch.filter(known, last):
            gone.append(f"tests/README.md:{number}: `{name}` is gone")
print("\n".join(gone) or "every test that tests/README.md names is there")
sys.exit(bool(gone))
