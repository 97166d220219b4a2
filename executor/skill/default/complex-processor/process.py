"""Lists the places of nested data with their types."""
import json
import sys


def scalars(value, path):
    """Yields each scalar in value with its path; the items of a list share one."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from scalars(inner, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for inner in value:
            yield from scalars(inner, path + "[]")
    else:
        yield path or "$", value


def kind(value):
    names = {type(None): "null", bool: "boolean", int: "number", float: "number", str: "text"}
    return names[type(value)]


def main():
    data = json.load(sys.stdin).get("data")
    places = {}
    for path, value in [] if data is None else scalars(data, ""):
        place = places.setdefault(path, {"types": set(), "count": 0})
        place["types"].add(kind(value))
        place["count"] += 1
    json.dump({
        "values": sum(place["count"] for place in places.values()),
        "places": [
            {"path": path, "types": sorted(place["types"]), "count": place["count"]}
            for path, place in sorted(places.items())
        ],
    }, sys.stdout)


main()
