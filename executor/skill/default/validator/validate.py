"""Finds nulls and empty texts, lists and maps in a value."""
import json
import sys


def walk(value, place):
    """Yields each value in data with its place."""
    yield place, value
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from walk(inner, f"{place}.{key}")
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from walk(inner, f"{place}[{index}]")


def main():
    data = json.load(sys.stdin).get("data")
    values = [] if data is None else list(walk(data, "data"))
    problems = []
    for place, value in values:
        if value is None:
            problems.append(f"{place} is null")
        elif isinstance(value, str) and not value.strip() or value in ([], {}):
            problems.append(f"{place} is empty")
    json.dump({"valid": not problems, "checked": len(values), "problems": problems}, sys.stdout)


main()
