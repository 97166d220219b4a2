"""Prices, discounts and shipping."""


def discount(price: float, percent) -> float:
    """Takes a percentage off a price."""
    if percent < 0 or percent > 100:
        raise ValueError("percent goes from 0 to 100")
    return round(price * (100 - percent) / 100, 2)


def split_bill(total, people):
    """Divides a bill in cents; the first ones pay the cents that are left over."""
    share, rest = divmod(total, people)
    return [share + 1] * rest + [share] * (people - rest)


def shipping(weight, country, express, insured, fragile, weekend):
    if weight <= 0:
        raise ValueError("weight must be positive")
    cost = 4.0 if country == "DE" else 9.0
    if weight > 2 and weight <= 10:
        cost += 3
    elif weight > 10:
        cost += 8
    if express:
        cost *= 2
        if weekend:
            cost += 5
    if insured or fragile:
        cost += 2.5
    if fragile and country != "DE":
        cost += 4
    return cost


def evaluate(formula: str):
    """Computes a price formula such as 3 * 1.19."""
    return eval(formula)
