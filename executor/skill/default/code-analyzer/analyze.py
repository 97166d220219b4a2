"""Analyses one Python file of the workspace by parsing it."""
import ast
import json
import os
import sys

from issues import find_issues

BRANCHES = (ast.If, ast.IfExp, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler)
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def own_nodes(function):
    """Yields the nodes of a function without those of functions inside it."""
    pending = list(function.body)
    while pending:
        node = pending.pop()
        yield node
        if not isinstance(node, FUNCTIONS + (ast.ClassDef,)):
            pending.extend(ast.iter_child_nodes(node))


def complexity(function):
    """McCabe's number: one more than the decisions."""
    total = 1
    for node in own_nodes(function):
        if isinstance(node, BRANCHES) or type(node).__name__ == "match_case":
            total += 1
        elif isinstance(node, ast.BoolOp):
            total += len(node.values) - 1
        elif isinstance(node, ast.comprehension):
            total += len(node.ifs)
    return total


def parameters(function):
    args = function.args
    positional = args.posonlyargs + args.args
    optional = len(positional) - len(args.defaults)
    described = [describe(arg, i < optional, False) for i, arg in enumerate(positional)]
    for arg, default in zip(args.kwonlyargs, args.kw_defaults):
        described.append(describe(arg, default is None, True))
    return described


def describe(arg, required, keyword_only):
    annotation = ast.unparse(arg.annotation) if arg.annotation else None
    return {"name": arg.arg, "annotation": annotation, "required": required, "keyword_only": keyword_only}


def describe_function(function, owner):
    return {
        "name": function.name,
        "class": owner,
        "line": function.lineno,
        "end_line": function.end_lineno,
        "parameters": parameters(function),
        "async": isinstance(function, ast.AsyncFunctionDef),
        "documented": ast.get_docstring(function) is not None,
        "complexity": complexity(function),
    }


def definitions(body, owner=None):
    """Yields each function and class of a body, with the class that it is in."""
    for node in body:
        if isinstance(node, FUNCTIONS):
            yield node, owner
        elif isinstance(node, ast.ClassDef):
            yield node, owner
            yield from definitions(node.body, node.name)


def imports(tree):
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names.add("." * node.level + (node.module or ""))
    return sorted(names)


def analyze(tree, comprehensive):
    found = list(definitions(tree.body))
    functions = [describe_function(node, owner) for node, owner in found if isinstance(node, FUNCTIONS)]
    public = [tree] + [node for node, _ in found if not node.name.startswith("_")]
    return {
        "functions": functions,
        "classes": [
            {"name": node.name, "line": node.lineno, "documented": ast.get_docstring(node) is not None}
            for node, _ in found if isinstance(node, ast.ClassDef)
        ],
        "imports": imports(tree),
        "complexity": max((function["complexity"] for function in functions), default=0),
        "docstrings": {
            "documented": sum(ast.get_docstring(node) is not None for node in public),
            "total": len(public),
        },
        "issues": find_issues(tree, functions, public) if comprehensive else [],
    }


def read(name):
    if os.path.relpath(os.path.realpath(name), os.path.realpath(".")).split(os.sep)[0] == "..":
        sys.exit(f"{name} is outside the workspace; name a file below it")
    try:
        with open(name, encoding="utf-8") as file:
            return file.read()
    except OSError as error:
        sys.exit(f"cannot read {name}: {error.strerror}")
    except UnicodeDecodeError:
        sys.exit(f"{name} is not text in UTF-8")


def main():
    given = json.load(sys.stdin)
    name = given["file"]
    text = read(name)
    python = name.endswith(".py")
    result = {
        "file": name,
        "language": "python" if python else os.path.splitext(name)[1].lstrip(".") or "text",
        "lines": len(text.splitlines()),
        "functions": [], "classes": [], "imports": [], "complexity": 0,
        "docstrings": {"documented": 0, "total": 0}, "issues": [],
    }
    if python:
        try:
            tree = ast.parse(text)
        except SyntaxError as error:
            result["issues"] = [{"line": error.lineno or 1, "kind": "syntax", "message": error.msg}]
        else:
            result.update(analyze(tree, given.get("analysis_type") == "comprehensive"))
    json.dump(result, sys.stdout)


main()
