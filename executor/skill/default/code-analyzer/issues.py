"""Finds issues in a parsed Python file."""
import ast

MOST_PARAMETERS = 5
MOST_COMPLEX = 10


def find_issues(tree, functions, public):
    """Returns the issues by line; functions are described, public are nodes."""
    found = list(unused_imports(tree))
    for node in ast.walk(tree):
        found.extend(of_node(node))
    for function in functions:
        if len(function["parameters"]) > MOST_PARAMETERS:
            found.append((function["line"], "parameters",
                          f"{function['name']} takes {len(function['parameters'])} parameters, more than {MOST_PARAMETERS}"))
        if function["complexity"] > MOST_COMPLEX:
            found.append((function["line"], "complexity",
                          f"{function['name']} has a complexity of {function['complexity']}, more than {MOST_COMPLEX}"))
    for node in public:
        if ast.get_docstring(node) is None:
            found.append((getattr(node, "lineno", 1), "docstring", f"{getattr(node, 'name', 'the module')} has no docstring"))
    return [{"line": line, "kind": kind, "message": message} for line, kind, message in sorted(set(found))]


def of_node(node):
    """Yields the issues that one node shows by itself."""
    if isinstance(node, ast.ExceptHandler) and node.type is None:
        yield node.lineno, "bare_except", "a bare except also hides typing mistakes and interrupts; name the exception"
    elif isinstance(node, ast.Compare):
        equality = any(isinstance(op, (ast.Eq, ast.NotEq)) for op in node.ops)
        sides = [node.left] + node.comparators
        if equality and any(isinstance(side, ast.Constant) and side.value is None for side in sides):
            yield node.lineno, "none_comparison", "None is compared by == or !=; use is or is not"
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("eval", "exec"):
        yield node.lineno, "dangerous_call", f"{node.func.id} runs whatever text it is given"
    elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        for default in node.args.defaults + node.args.kw_defaults:
            if isinstance(default, (ast.List, ast.Dict, ast.Set)):
                yield default.lineno, "mutable_default", f"a default of {node.name} is shared by all its calls; use None"


def unused_imports(tree):
    """Yields the imported names that the file neither reads nor exports."""
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    for node in ast.walk(tree):  # __all__ = ["name"] exports
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets):
            used.update(c.value for c in ast.walk(node.value) if isinstance(c, ast.Constant))
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)) and getattr(node, "module", "") != "__future__":
            for alias in node.names:
                name = (alias.asname or alias.name).split(".")[0]
                if name != "*" and name not in used:
                    yield node.lineno, "unused_import", f"{name} is imported and never used"
