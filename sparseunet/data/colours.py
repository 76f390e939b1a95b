"""The colours of classes: the same in every picture, and in annotators' tools."""

Colour = tuple[int, int, int]
"""Red, green and blue from 0 to 255."""

LABEL_COLOURS: tuple[Colour, ...] = (
    (230, 75, 53),
    (38, 166, 222),
    (245, 178, 36),
    (52, 178, 106),
    (171, 99, 219),
    (240, 120, 180),
    (0, 190, 180),
    (160, 115, 70),
    (150, 190, 40),
    (90, 110, 235),
)
"""Colour of label values 1, 2, ...; the same in every picture, and repeated after the last."""


def label_colour(value: int) -> Colour:
    """Return the colour of a label value of 1 or more."""
    return LABEL_COLOURS[(value - 1) % len(LABEL_COLOURS)]
