"""Computes one cell: the product of two numbers, else the cell's name."""
import json
import sys


def number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def main():
    given = json.load(sys.stdin)
    row, col = given["row"], given["col"]
    value = row * col if number(row) and number(col) else f"{row}:{col}"
    json.dump({"row": row, "col": col, "value": value}, sys.stdout)


main()
