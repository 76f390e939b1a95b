"""The classes as people see them in a drawing tool: a value, a name and a colour."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sparseunet.data.colours import Colour, label_colour
from sparseunet.data.labels import LabelSchema


@dataclass(frozen=True, kw_only=True, slots=True)
class DrawnClass:
    """One class that can be drawn."""

    value: int
    """Label value in the dataset's label files; never 0."""
    name: str
    colour: Colour


def drawn_classes(labels: LabelSchema) -> tuple[DrawnClass, ...]:
    """Return what can be drawn, by value.

    Overlapping regions are drawn as their parts, each named after all regions it belongs to.
    """
    names = {value: name for name, value in labels.classes.items()}
    for value in labels.values:
        within = [region for region, values in labels.regions.items() if value in values]
        names.setdefault(value, " + ".join(within))
    return tuple(
        DrawnClass(value=value, name=names[value], colour=label_colour(value))
        for value in labels.values
        if value != 0
    )


def values_by_name(
    names: Sequence[str], classes: Sequence[DrawnClass], *, others: Mapping[str, int]
) -> dict[str, int]:
    """Return the value of each name that is known, spelt exactly or in other capitals.

    Args:
        names: As found in a file.
        classes: Of the dataset.
        others: Further names and their values, such as `background`.
    """
    exact = {**others, **{each.name: each.value for each in classes}}
    loose = {name.strip().casefold(): value for name, value in exact.items()}
    found = {name: exact.get(name, loose.get(name.strip().casefold())) for name in names}
    return {name: value for name, value in found.items() if value is not None}
