#!/usr/bin/env python3
# -*- coding: utf-8 -*-
"""What the grammar allows, in one file: each construct once or twice."""

from __future__ import annotations

import os, sys as system
import collections.abc
from . import sibling
from ..parent.module import (
    first,
    second as other,  # a comment among names
)
from math import *

π = 3.14159; numbers = [0x_FF, 0o17, 0b1010, 1_000, 1., .5, 1e-3, 2.5E+10, 3j, 1_0.0_1e1_0J]
texts = 'a', "b", r'\d', b"\x00", Rb'raw', u"old", f"{π:.2f}", rf'{π}\{π}', '''triple
'quoted' text # no comment
''', """and "this" one""", 'con' "cat"  'ena' f"ted {π}"
escaped = 'it\'s', "a \"quoted\" \
continued text", r'\'', '\\'
nested = f"{'a' if π else 'b'} {texts[0]!r:>{numbers[1]}} {{literal}} {π=} {(lambda x: x * 2)(3)} {numbers[0]:{'>'}{10}}"
multi = f"""
{ max(1,
  2) } and {
  "inner" }
"""

if π > 3 and \
        numbers:
    pass

	
class Empty: ...


class Base(object, metaclass=type):
    """A documented class."""

    field: int = 5
    other: "str"

    def __init__(self, /, a, b=(1, 2), *args, c: int = {'k': lambda x: x}['k'](1), **kwargs) -> None:
        self.a = a
        self.b = b if a else [x for x in args if x and x > 1]

    @property
    def value(self): return self.a

    @staticmethod
    @other.decorated(by="name")
    def static(*, keyword):
        '''Documented.'''
        def inner(x):
            nonlocal keyword
            return static(x) if x else keyword
        return inner

    async def wait(self):
        async with self.lock as l, open('x') as f:
            await l.acquire()
        async for item in self:
            yield item
        return_value = [i async for i in self if i]
        return


def branches(x):
    if x == 1:
        return 1
    elif x == 2 or x == 3 and not x:
        return 2
    else:
        while x:
            x -= 1
            if x == 5: continue
            if x == 7: break
        else:
            raise ValueError("none") from None
    for i, j in zip(range(x), range(x)):
        print(i, j, sep=""); del i
    else:
        assert x, "message"
    try:
        with (open("a") as a, open("b")):
            pass
    except (OSError, ValueError) as e:
        raise
    else:
        pass
    finally:
        global late
        late = 1


def groups():
    try:
        pass
    except* ValueError as group:
        print(group.exceptions)


def matching(command, match=None):
    match command:
        case []:
            return None
        case [x] | [x, _] if x > 0 and x < 9:
            return x
        case {"key": value, **rest}:
            return value
        case Point(x=0, y=0) as origin:
            return origin
        case "go" | -1 | 1 + 2j:
            match (command):
                case other: return other
        case _:
            match.value = match[0]
            match(command)
            match = case = type = 5
            print(match, case)
    match * command
    match -command
    return match


def expressions(a, *rest, **named):
    (b := a + 1)
    c = a if b else rest[1:2, ::3] @ named["x"] ** -1 // 2 << 3 >> 1 & 0xF | ~a ^ b
    d = {**named, 'x': [*rest], "y": {1, 2, *rest}}
    e = lambda *a, k=1, **kw: (yield)
    f = not a is not b in c not in d
    g = a < b <= c != d
    a @= b; a //= 2; a **= 3; a >>= 1; a <<= 1; a |= 1; a ^= 1; a &= 1; a %= 2
    h: list[int] = [y for x in rest for y in x if y if y > 1 or y < 0]
    print(*rest, **named, end=f"{a}{b!s}{c:>10}\n")
    return a.b.c(1)(2)[3].d(x=1), "".join(str(i) for i in range(3)), ...


async def main():
    await asyncio.gather(*(one(i) for i in range(3)), return_exceptions=True)
    def nested():
        class Local:
            def method(self):
                return lambda: self
        return Local
    return nested

if __name__ == '__main__': main()
