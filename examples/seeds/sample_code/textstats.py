"""Statistics of texts."""
import re
from collections import Counter


def words(text: str) -> list:
    """Splits a text into lower-case words."""
    return re.findall(r"[a-z']+", text.lower())


def most_common(text: str, count: int = 3) -> list:
    """Gives the most frequent words with their numbers, most frequent first."""
    return Counter(words(text)).most_common(count)


def average_length(texts):
    """Gives the mean length of some texts."""
    return sum(len(text) for text in texts) / len(texts)


def report(text: str):
    """Prints the number of words."""
    print(len(words(text)), "words")
