"""napari, and other tools that open arrays: TIFF volumes beside a table of colours."""

import csv
from collections.abc import Sequence
from pathlib import Path

from sparseunet.annotation.exchange.classes import DrawnClass
from sparseunet.artifacts import atomic_path

CLASS_TABLE = "classes.csv"


def write_class_table(folder: Path, classes: Sequence[DrawnClass]) -> None:
    """Write value, name and colour (0 to 255) of every class."""
    with (
        atomic_path(folder / CLASS_TABLE) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as stream,
    ):
        writer = csv.writer(stream)
        writer.writerow(["value", "name", "red", "green", "blue"])
        writer.writerows([each.value, each.name, *each.colour] for each in classes)
