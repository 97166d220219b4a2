"""Fetches a URL: http, https, data, or a file of the workspace."""
import json
import os
import sys
import urllib.error
import urllib.parse
import urllib.request

SECONDS = 30
MOST = 1 << 20  # bytes of a body


def fetch(endpoint):
    """Returns the status and the body as bytes; status 0 means no answer."""
    scheme = urllib.parse.urlsplit(endpoint).scheme
    if scheme == "file":
        return read(urllib.parse.unquote(endpoint[len("file:"):]))
    if scheme not in ("http", "https", "data"):
        sys.exit(f"endpoint is {endpoint!r}; it must begin with http:, https:, data: or file:")
    try:
        with urllib.request.urlopen(endpoint, timeout=SECONDS) as answer:
            return getattr(answer, "status", None) or 200, answer.read(MOST)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read(MOST)
    except (OSError, ValueError) as error:
        return 0, str(error).encode()


def read(name):
    if os.path.relpath(os.path.realpath(name), os.path.realpath(".")).split(os.sep)[0] == "..":
        sys.exit(f"{name} is outside the workspace; a file URL is relative to it, as in file:data/status.json")
    try:
        with open(name, "rb") as file:
            return 200, file.read(MOST)
    except OSError as error:
        return 0, f"cannot read {name}: {error.strerror}".encode()


def main():
    status, content = fetch(json.load(sys.stdin)["endpoint"])
    body = content.decode("utf-8", errors="replace")
    try:
        body = json.loads(body)
    except ValueError:
        pass  # a text, then
    json.dump({"success": 200 <= status < 300, "status": status, "body": body}, sys.stdout)


main()
