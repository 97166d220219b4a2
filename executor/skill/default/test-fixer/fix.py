"""Corrects the guesses behind failed generated tests."""
import json
import os
import subprocess
import sys
import tempfile

SECONDS = 10
PROBE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "probe.py")


def probe(case):
    """Returns the arguments and the expectation that the code itself shows."""
    asked = dict(case, file=os.path.abspath(case["file"]))
    with tempfile.TemporaryDirectory() as folder:
        answer = os.path.join(folder, "answer.json")
        work = os.path.join(folder, "work")
        os.mkdir(work)
        try:
            done = subprocess.run(
                [sys.executable, "-B", PROBE, answer], input=json.dumps(asked).encode(),
                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=work, timeout=SECONDS)
        except subprocess.TimeoutExpired:
            return None, f"its call did not end within {SECONDS} seconds"
        if done.returncode != 0:
            lines = done.stderr.decode("utf-8", errors="replace").strip().splitlines()
            return None, lines[-1] if lines else f"exit code {done.returncode}"
        with open(answer, encoding="utf-8") as file:
            return json.load(file), ""


def repair(directory, failed):
    """Repairs the failed cases of one folder; returns fixed and unfixed."""
    record = os.path.join(directory, "cases.json")
    try:
        with open(record, encoding="utf-8") as file:
            cases = json.load(file)
    except OSError as error:
        sys.exit(f"cannot read {record}, which test-generator writes: {error.strerror}")
    known = {case["test"]: case for case in cases}
    fixed, unfixed = [], []
    for test in failed:
        if test not in known:
            unfixed.append({"test": test, "reason": "test-generator did not write it"})
            continue
        found, reason = probe(known[test])
        if found is None:
            unfixed.append({"test": test, "reason": reason})
            continue
        known[test].update(found)
        fixed.append(test)
    with open(record, "w", encoding="utf-8") as file:
        json.dump(cases, file, indent=2)
    return fixed, unfixed


def main():
    failures = json.load(sys.stdin)["failures"]
    fixed, unfixed = [], []
    for directory in sorted({failure["directory"] for failure in failures}):
        done, left = repair(directory, [f["test"] for f in failures if f["directory"] == directory])
        fixed += done
        unfixed += left
    json.dump({"fixed": fixed, "unfixed": unfixed}, sys.stdout)


main()
