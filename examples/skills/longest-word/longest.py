"""Reads the parameters as JSON and writes the result as JSON."""
import json
import sys

given = json.load(sys.stdin)
words = [w for w in given["text"].split() if len(w) >= given["at_least"]]
json.dump({"word": max(words, key=len, default=""), "words": len(words)}, sys.stdout)
