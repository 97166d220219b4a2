"""Calls one function until a call returns, and writes down what came back.

It is a program of its own because the function may print, hang or exit. The case comes
on stdin; the answer goes to the file that the first argument names.
"""
import copy
import importlib.util
import itertools
import json
import os
import sys

MOST = 200  # calls
VALUES = [12, "some text", [3, 1, 2], {"a": 1}, ["b", "a"], 2.5]
BY_ANNOTATION = {"int": [12, 3], "float": [12.5], "str": ["some text"], "bool": [False]}


def load(path):
    sys.path.insert(0, os.path.dirname(path))
    spec = importlib.util.spec_from_file_location("reviewed", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def candidates(case):
    """Yields the guessed arguments, then others, in an order that never changes."""
    yield case["arguments"]
    values = [BY_ANNOTATION.get(parameter["annotation"], VALUES) for parameter in case["parameters"]]
    yield from map(list, itertools.islice(itertools.product(*values), MOST))


def expectation(first, second):
    """How a test can hold a result: by its value if JSON keeps it, else by its type."""
    try:
        kept = json.loads(json.dumps(first))
        if same(kept, first) and same(first, second):
            return {"kind": "value", "value": kept}
    except (TypeError, ValueError, RecursionError):
        pass  # nothing that JSON can hold
    return {"kind": "type", "value": type(first).__name__}


def same(a, b):
    """Equal, and of the same types all through: 1 is not True, a tuple no list."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def find(case):
    raised = None
    for arguments in candidates(case):
        try:
            results = []
            for _ in range(2):  # each in a fresh module, as the tests do it
                function = getattr(load(case["file"]), case["function"])
                results.append(copy.deepcopy(function(*copy.deepcopy(arguments))))
        except (Exception, SystemExit) as error:
            if raised is None:
                raised = {"arguments": arguments, "expect": {"kind": "error", "value": type(error).__name__}}
        else:
            return {"arguments": arguments, "expect": expectation(*results)}
    return raised


def main():
    case = json.load(sys.stdin)
    load(case["file"])  # a module that does not import is told on stderr, not recorded
    found = find(case)
    with open(sys.argv[1], "w", encoding="utf-8") as file:
        json.dump(found, file)


main()
