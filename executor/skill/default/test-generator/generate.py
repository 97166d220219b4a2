"""Writes unit tests for analysed Python files, by guess or by record."""
import json
import os
import re
import sys

DIRECTORY = "generated_tests"
RECORD = os.path.join(DIRECTORY, "cases.json")
GUESSES = {"int": 1, "float": 1.5, "str": "text", "bool": True, "list": [], "dict": {}}

HEADER = '''\
"""Tests of {file}, written by test-generator."""
import importlib.util
import os
import sys
import tempfile
import unittest

FILE = os.path.abspath({file!r})


def load():
    """Imports the file anew, so that no test sees what another left behind."""
    spec = importlib.util.spec_from_file_location("reviewed", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Generated(unittest.TestCase):
    def setUp(self):
        sys.path.insert(0, os.path.dirname(FILE))
        self.addCleanup(sys.path.remove, os.path.dirname(FILE))
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(folder.name)
        self.reviewed = load()
'''

BODIES = {
    "something": "        self.assertIsNotNone(self.reviewed.{call})\n",
    "value": "        self.assertEqual(self.reviewed.{call}, {value!r})\n",
    "type": "        self.assertEqual(type(self.reviewed.{call}).__name__, {value!r})\n",
    "error": "        with self.assertRaises((Exception, SystemExit)) as caught:\n"
             "            self.reviewed.{call}\n"
             "        self.assertEqual(type(caught.exception).__name__, {value!r})\n",
}


def testable(function):
    return (
        function["class"] is None and not function["async"]
        and not function["name"].startswith("_") and function["name"] != "main"
        and not any(p["required"] and p["keyword_only"] for p in function["parameters"])
    )


def guess(parameter):
    """A value for a parameter; list[str] and Optional types count by their first word."""
    word = re.match(r"\w*", parameter["annotation"] or "").group().lower()
    return GUESSES.get(word, "text")


def cases(analysis, module):
    """One case for each function: what is called, and what the test expects."""
    for function in filter(testable, analysis["functions"]):
        required = [p for p in function["parameters"] if p["required"]]
        yield {
            "test": f"{module}.test_{function['name']}",
            "file": analysis["file"],
            "function": function["name"],
            "parameters": required,
            "arguments": [guess(p) for p in required],
            "expect": {"kind": "something"},
        }


def recorded():
    try:
        with open(RECORD, encoding="utf-8") as file:
            return {case["test"]: case for case in json.load(file)}
    except FileNotFoundError:
        return {}


def method(case):
    call = f"{case['function']}({', '.join(map(repr, case['arguments']))})"
    body = BODIES[case["expect"]["kind"]].format(call=call, value=case["expect"].get("value"))
    return f"\n    def test_{case['function']}(self):\n{body}"


def clear():
    """Removes what an earlier run has generated."""
    for name in os.listdir(DIRECTORY):
        if name == "cases.json" or name.startswith("test_") and name.endswith(".py"):
            os.remove(os.path.join(DIRECTORY, name))


def main():
    given = json.load(sys.stdin)
    os.makedirs(DIRECTORY, exist_ok=True)
    known = recorded() if given.get("iteration", 0) > 0 else {}
    clear()
    files, written = [], []
    for analysis in given["analyses"]:
        stem = re.sub(r"\W+", "_", os.path.splitext(analysis["file"])[0]).strip("_")
        own = [known.get(case["test"], case) for case in cases(analysis, "test_" + stem)]
        if not own:
            continue
        files.append(f"{DIRECTORY}/test_{stem}.py")
        written += own
        with open(files[-1], "w", encoding="utf-8") as file:
            file.write(HEADER.format(file=analysis["file"]) + "".join(map(method, own)))
    with open(RECORD, "w", encoding="utf-8") as file:
        json.dump(written, file, indent=2)
    json.dump({
        "directory": DIRECTORY,
        "files": files,
        "count": len(written),
        "recorded": sum(case["expect"]["kind"] != "something" for case in written),
    }, sys.stdout)


main()
