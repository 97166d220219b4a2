"""Records what Python itself says of the sources in this folder.

    python3 record.py            writes NAME.json beside each NAME.py
    python3 record.py FILE...    prints one line of JSON for each file that parses

The tests hold our tokenizer and parser against these records.
"""

import ast
import io
import json
import pathlib
import sys
import tokenize

SKIPPED = {tokenize.NL, tokenize.ENCODING, tokenize.ENDMARKER}
KINDS = {
    tokenize.NAME: "name", tokenize.NUMBER: "number", tokenize.STRING: "string", tokenize.OP: "op",
    tokenize.NEWLINE: "newline", tokenize.INDENT: "indent", tokenize.DEDENT: "dedent", tokenize.COMMENT: "comment",
}
STATEMENTS = {
    ast.FunctionDef: "def", ast.AsyncFunctionDef: "def", ast.ClassDef: "class", ast.If: "if", ast.For: "for", ast.AsyncFor: "for",
    ast.While: "while", ast.Try: "try", ast.TryStar: "try", ast.ExceptHandler: "except", ast.With: "with", ast.AsyncWith: "with",
    ast.Match: "match", ast.match_case: "case", ast.Return: "return", ast.Raise: "raise", ast.Assert: "assert", ast.Delete: "del",
    ast.Global: "global", ast.Nonlocal: "nonlocal", ast.Pass: "pass", ast.Break: "break", ast.Continue: "continue",
    ast.Assign: "assign", ast.AugAssign: "assign", ast.AnnAssign: "assign", ast.Expr: "expression", ast.Import: "import",
    ast.ImportFrom: "from",
}
FORKS = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler, ast.IfExp)


def tokens(text):
    result = []
    for t in tokenize.generate_tokens(io.StringIO(text).readline):
        if t.type not in SKIPPED:
            blank = t.type in (tokenize.NEWLINE, tokenize.DEDENT)
            result.append([KINDS[t.type], "" if blank else t.string] + ([] if blank else [t.start[0], t.start[1]]))
    return result


def callee(node):
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return callee(node.value) + "." + node.attr
    return ""


def own_nodes(function):
    """The nodes of a function but those of functions and classes in it."""
    stack = list(function.body)
    while stack:
        node = stack.pop()
        yield node
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            stack.extend(node.decorator_list)
            continue
        stack.extend(ast.iter_child_nodes(node))


def cyclomatic(function):
    n = 1
    for node in own_nodes(function):
        if isinstance(node, FORKS):
            n += 1
        elif isinstance(node, ast.BoolOp):
            n += len(node.values) - 1
        elif isinstance(node, ast.comprehension):
            n += 1 + len(node.ifs)
        elif isinstance(node, ast.match_case):
            always = isinstance(node.pattern, ast.MatchAs) and node.pattern.pattern is None and node.guard is None
            n += (0 if always else 1) + (0 if node.guard is None else 1)
    return n


def params(function):
    a = function.args
    names = [p.arg for p in a.posonlyargs + a.args]
    names += ["*" + a.vararg.arg] if a.vararg else []
    names += [p.arg for p in a.kwonlyargs]
    return names + (["**" + a.kwarg.arg] if a.kwarg else [])


def record(text):
    tree = ast.parse(text)
    out = {"functions": [], "classes": [], "imports": [], "calls": [], "statements": {}}

    def visit(node, prefix):
        kind = STATEMENTS.get(type(node))
        if kind:
            out["statements"][kind] = out["statements"].get(kind, 0) + 1
        if kind == "def":
            out["functions"].append({
                "name": prefix + node.name, "line": node.lineno, "end_line": node.end_lineno, "params": params(node),
                "async": isinstance(node, ast.AsyncFunctionDef), "decorators": len(node.decorator_list),
                "documented": ast.get_docstring(node) is not None, "cyclomatic": cyclomatic(node),
            })
            prefix += node.name + "."
        elif kind == "class":
            out["classes"].append({
                "name": prefix + node.name, "line": node.lineno, "end_line": node.end_lineno, "bases": len(node.bases),
                "documented": ast.get_docstring(node) is not None,
            })
            prefix += node.name + "."
        elif kind == "import":
            out["imports"] += [[a.name, "", a.asname or ""] for a in node.names]
        elif kind == "from":
            out["imports"] += [["." * node.level + (node.module or ""), a.name, a.asname or ""] for a in node.names]
        elif isinstance(node, ast.Call):
            out["calls"].append(callee(node.func))
        for child in ast.iter_child_nodes(node):
            visit(child, prefix)

    visit(tree, "")
    out["functions"].sort(key=lambda f: (f["line"], f["name"]))
    out["classes"].sort(key=lambda c: (c["line"], c["name"]))
    out["imports"].sort()
    out["calls"].sort()
    return out


def main():
    if len(sys.argv) == 1:
        for path in sorted(pathlib.Path(__file__).parent.glob("*.py")):
            if path.name == "record.py":
                continue
            text = path.read_bytes().decode()
            result = record(text)
            result["tokens"] = tokens(text)
            path.with_suffix(".json").write_text(json.dumps(result, ensure_ascii=False, indent=None, sort_keys=True) + "\n")
        return
    for name in sys.argv[1:]:
        try:
            text = pathlib.Path(name).read_bytes().decode()
            result = record(text)
            result["tokens"] = tokens(text)
        except (SyntaxError, ValueError, RecursionError, tokenize.TokenError):
            continue
        result["file"] = name
        print(json.dumps(result))


if __name__ == "__main__":
    main()
