"""Summarises each column of a table."""
import json
import sys


def table(data):
    """Returns the number of rows and the columns, each a list of its values."""
    if data is None:
        return 0, {}
    if isinstance(data, dict) and data and all(isinstance(v, list) for v in data.values()):
        return max(map(len, data.values())), data
    columns = {}
    rows = data if isinstance(data, list) else [data]
    for row in rows:
        if isinstance(row, dict):
            cells = row.items()
        elif isinstance(row, list):
            cells = ((str(index), cell) for index, cell in enumerate(row))
        else:
            cells = [("value", row)]
        for name, cell in cells:
            columns.setdefault(name, []).append(cell)
    return len(rows), columns


def summary(name, cells):
    cells = [cell for cell in cells if cell is not None]
    numeric = bool(cells) and all(isinstance(c, (int, float)) and not isinstance(c, bool) for c in cells)
    return {
        "name": name,
        "values": len(cells),
        "distinct": len({json.dumps(cell, sort_keys=True) for cell in cells}),
        "min": min(cells) if numeric else None,
        "max": max(cells) if numeric else None,
    }


def main():
    rows, columns = table(json.load(sys.stdin).get("data"))
    json.dump({"rows": rows, "columns": [summary(*column) for column in columns.items()]}, sys.stdout)


main()
