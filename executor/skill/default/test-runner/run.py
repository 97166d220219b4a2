"""Runs the unit tests of a folder and reports what failed."""
import json
import re
import subprocess
import sys

SECONDS = 120

# As in "FAIL: test_a (test_b.Generated.test_a)"; before Python 3.11 without the last name.
HEAD = re.compile(r"^={70}\n(FAIL|ERROR): (\w+) \((\w+)[^)]*\).*\n", re.MULTILINE)
END = re.compile(r"^-{70}\nRan (\d+) tests? in ", re.MULTILINE)


def run(directory):
    """Returns what unittest prints."""
    argv = [sys.executable, "-B", "-m", "unittest", "discover", "-s", directory, "-p", "test_*.py"]
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        sys.exit(f"the tests of {directory} did not end within {SECONDS} seconds")
    return done.stderr.decode("utf-8", errors="replace")


def parse(text, directory):
    """Returns the number of tests and the failures."""
    end = None
    for end in END.finditer(text):  # the last one: a test may print such a line
        pass
    if end is None or int(end[1]) == 0:
        sys.exit(f"{directory} has no tests that run:\n{text}")
    heads = list(HEAD.finditer(text, 0, end.start()))
    failures = []
    for head, after in zip(heads, heads[1:] + [end]):
        trace = text[head.end():after.start()].strip().splitlines()
        failures.append({
            "test": f"{head[3]}.{head[2]}",
            "kind": "failure" if head[1] == "FAIL" else "error",
            "message": trace[-1],
            "directory": directory,
        })
    return int(end[1]), failures


def main():
    directory = json.load(sys.stdin)["test_directory"]
    text = run(directory)
    sys.stderr.write(text)
    total, failures = parse(text, directory)
    json.dump({
        "success": not failures, "total": total, "failures_count": len(failures), "failures": failures,
    }, sys.stdout)


main()
