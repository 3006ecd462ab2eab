"""What is minimized in tests: a bowl, its slope, and both at once."""


def bowl(x, center=3.0):
    return float(((x - center) ** 2).sum())


def slope(x, center=3.0):
    return 2.0 * (x - center)


def both(x, center=3.0):
    return bowl(x, center), slope(x, center)
