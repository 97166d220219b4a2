"""Tells how complex a value is by its depth and its number of scalars."""
import json
import sys


def measure(value):
    """Returns how deep a value is nested and how many scalars it holds."""
    if isinstance(value, dict):
        value = list(value.values())
    if not isinstance(value, list):
        return 0, 1
    inner = [measure(item) for item in value]
    return 1 + max((depth for depth, _ in inner), default=0), sum(count for _, count in inner)


def kind(value):
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    names = {int: "number", float: "number", str: "text", list: "list", dict: "map"}
    return names[type(value)]


def main():
    data = json.load(sys.stdin)["data"]
    depth, values = measure(data)
    if depth <= 1 and values <= 20:
        complexity = "simple"
    elif depth <= 2 and values <= 1000:
        complexity = "medium"
    else:
        complexity = "complex"
    json.dump({"complexity": complexity, "kind": kind(data), "depth": depth, "values": values}, sys.stdout)


main()
