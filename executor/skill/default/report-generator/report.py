"""Writes the report of a code review as Markdown."""
import json
import os
import sys


def tests(results):
    """The result of test-runner, also out of the pass of a loop, and how many of the
    tests were recorded from the code; None without a result."""
    results = results if isinstance(results, dict) else {}
    recorded = (results.get("generate_tests") or {}).get("recorded", 0)
    results = results.get("run_tests") or results
    return (results if "total" in results else None), recorded


def some(count, noun):
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def cell(text):
    return str(text).replace("|", "\\|").replace("\n", " ")


def file_table(analyses):
    yield "| File | Lines | Functions | Complexity | Documented | Issues |"
    yield "|---|--:|--:|--:|--:|--:|"
    for a in analyses:
        docs = a["docstrings"]
        yield (f"| {cell(a['file'])} | {a['lines']} | {len(a['functions'])} | {a['complexity']} "
               f"| {docs['documented']} of {docs['total']} | {len(a['issues'])} |")


def issue_list(analyses):
    for a in analyses:
        if a["issues"]:
            yield f"### {a['file']}"
            yield ""
            for issue in a["issues"]:
                yield f"- line {issue['line']}: {issue['message']} ({issue['kind']})"
            yield ""


def test_lines(result, recorded):
    if result is None:
        yield "No tests ran."
        return
    yield f"{result['total'] - result['failures_count']} of {some(result['total'], 'test')} passed."
    if recorded:
        yield f"{recorded} of them expect what the code was seen to do, which need not be what it ought to do."
    yield ""
    for failure in result["failures"]:
        yield f"- {failure['test']}: {failure['message']}"


def main():
    given = json.load(sys.stdin)
    analyses, name = given["analyses"], given["output_file"]
    tested = list(test_lines(*tests(given.get("test_results"))))
    if os.path.relpath(os.path.realpath(name), os.path.realpath(".")).split(os.sep)[0] == "..":
        sys.exit(f"{name} is outside the workspace; name a file below it")
    issues = sum(len(a["issues"]) for a in analyses)
    summary = f"{some(len(analyses), 'file')}, {some(issues, 'issue')}; {tested[0]}"
    lines = [
        "# Code review", "", summary, "", "## Files", "", *file_table(analyses), "",
        "## Issues", "", *(list(issue_list(analyses)) or ["None found.", ""]),
        "## Tests", "", *tested,
    ]
    os.makedirs(os.path.dirname(name) or ".", exist_ok=True)
    with open(name, "w", encoding="utf-8") as file:
        file.write("\n".join(lines).rstrip() + "\n")
    json.dump({"path": os.path.normpath(name), "summary": summary}, sys.stdout)


main()
