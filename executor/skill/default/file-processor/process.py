"""Counts the lines, words and bytes of a text file of the workspace."""
import json
import os
import sys


def main():
    name = json.load(sys.stdin)["file"]
    if os.path.relpath(os.path.realpath(name), os.path.realpath(".")).split(os.sep)[0] == "..":
        sys.exit(f"{name} is outside the workspace; name a file below it")
    try:
        with open(name, "rb") as file:
            content = file.read()
    except OSError as error:
        sys.exit(f"cannot read {name}: {error.strerror}")
    text = content.decode("utf-8", errors="replace")
    lines = text.splitlines()
    json.dump({
        "file": name,
        "operation": "analyze",
        "bytes": len(content),
        "lines": len(lines),
        "words": len(text.split()),
        "longest_line": max(map(len, lines), default=0),
    }, sys.stdout)


main()
