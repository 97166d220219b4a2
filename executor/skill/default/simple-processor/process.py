"""Counts the values of flat data and adds up its numbers."""
import json
import sys


def main():
    data = json.load(sys.stdin).get("data")
    if data is None:
        values = []
    elif isinstance(data, dict):
        values = list(data.values())
    else:
        values = data if isinstance(data, list) else [data]
    numbers = [v for v in values if isinstance(v, (int, float)) and not isinstance(v, bool)]
    json.dump({"values": len(values), "numbers": len(numbers), "sum": sum(numbers)}, sys.stdout)


main()
