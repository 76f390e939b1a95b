"""ITK-SNAP: NIfTI label maps beside a label description file."""

from collections.abc import Sequence
from pathlib import Path

from sparseunet.annotation.exchange.classes import DrawnClass

LABEL_DESCRIPTION = "label_description.txt"


def write_label_description(folder: Path, classes: Sequence[DrawnClass]) -> None:
    """Write the names and colours that ITK-SNAP loads with Segmentation, Import Label Descriptions.

    One line per class: value, red, green, blue, opacity, visible, visible as a mesh, name.
    """
    lines = [
        "################################################",
        "# ITK-SnAP Label Description File",
        "# value  red green blue  opacity  visible mesh  name",
        "################################################",
        '    0     0    0    0        0  0  0    "Clear Label"',
    ]
    for each in classes:
        red, green, blue = each.colour
        name = each.name.replace('"', "'")
        lines.append(f'{each.value:5d} {red:5d}{green:5d}{blue:5d}        1  1  1    "{name}"')
    (folder / LABEL_DESCRIPTION).write_text("\n".join(lines) + "\n", encoding="utf-8")
