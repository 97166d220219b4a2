"""Stock of a small shop."""
import json
import os


def load_stock(path):
    """Reads the stock from a JSON file; an unreadable one counts as empty."""
    try:
        with open(path) as file:
            return json.load(file)
    except:
        return {}


def add_item(name, count, stock={}):
    """Books count more pieces of an item."""
    stock[name] = stock.get(name, 0) + count
    return stock


def low_items(stock: dict, level: int = 5) -> list:
    """Names what is to be ordered, in alphabetical order."""
    return sorted(name for name, count in stock.items() if count < level)


def days_left(stock: int, daily_sales: int) -> float:
    """Tells how long the stock will last."""
    if daily_sales == None:
        daily_sales = 1
    return stock / daily_sales


class Shelf:
    def __init__(self, capacity):
        self.capacity = capacity
        self.items = []

    def put(self, item):
        if len(self.items) >= self.capacity:
            raise ValueError("the shelf is full")
        self.items.append(item)
