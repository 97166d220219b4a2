import os, sys  # want import-form
import json
import re  # want unused-import
from typing import Optional, List  # want unused-import
from math import *  # want star-import
from __future__ import annotations
try:
    import fast
except ImportError:
    fast = None

# TODO later  # want todo-comment


class bad_name:  # want naming missing-doc
    def camelCase(self, Arg):  # want naming naming missing-doc
        return json.dumps(Arg)

    def setUp(self):
        """Named by unittest."""

    @property
    def size(self):
        """Documented."""
        return 1

    @size.setter
    def size(self, value):
        pass

    def _hidden(self):
        pass


def defaults(a=[], b={}, c=(), d=dict(), l=None):  # want mutable-default mutable-default mutable-default ambiguous-name missing-doc
    try:
        pass
    except:  # want bare-except
        pass
    if a == None:  # want none-comparison
        pass
    if b != True:  # want bool-comparison
        pass
    if c is "x" or d is not 5:  # want literal-identity literal-identity
        pass
    f = lambda x: x  # want lambda-assignment
    assert (a, "always true")  # want assert-tuple
    assert (a), "fine"
    x = 1; y = 2  # want several-statements
    if x: y = 3  # want several-statements
    print(f"nothing", f"{x}" f"more")  # want empty-f-string
    z: Optional[int] = 5   
    return os.path, sys.argv, y, z, f, "a line that is much longer than the seventy-nine characters that are allowed"  # want line-too-long


def stub(): ...  # want missing-doc


def crowd(a, b, c, d, e, f, g, h):  # want too-many-parameters missing-doc
    text = """
   a text	 
	 with white space  
"""
    return text
