"""The classes of a dataset: names, values, overlapping regions and nnU-Net's ignore value."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelSchema:
    """The classes, regions and the ignore value of a dataset."""

    classes: dict[str, int]
    """Name to value of every plain class, background included with value 0. The ignore label is
    not a class. With regions this holds background only."""
    regions: dict[str, tuple[int, ...]]
    """Name to the label values it is the union of; empty for plain datasets."""
    regions_class_order: tuple[int, ...] = ()
    """The value painted for each region, later ones over earlier ones."""
    ignore: int | None = None
    """The value that marks unannotated voxels in label files, if the dataset declares one."""

    @property
    def has_regions(self) -> bool:
        """Whether classes overlap, so that the network predicts one sigmoid channel per region."""
        return bool(self.regions)

    @property
    def foreground(self) -> dict[str, tuple[int, ...]]:
        """Name to label values of everything that is scored: regions, or classes but background."""
        if self.has_regions:
            return dict(self.regions)
        return {name: (value,) for name, value in self.classes.items() if value != 0}

    @property
    def values(self) -> tuple[int, ...]:
        """Every label value that may stand in a label file, sorted, without the ignore value."""
        found = {0, *self.classes.values()}
        for values in self.regions.values():
            found.update(values)
        return tuple(sorted(found))

    @property
    def foreground_values(self) -> tuple[int, ...]:
        """Every label value but background and ignore, sorted: what one-hot channels stand for."""
        return tuple(value for value in self.values if value != 0)

    @property
    def output_names(self) -> tuple[str, ...]:
        """Name of each channel the network predicts: regions, or classes by value."""
        if self.has_regions:
            return tuple(self.regions)
        return tuple(sorted(self.classes, key=self.classes.__getitem__))

    @property
    def num_outputs(self) -> int:
        """Number of channels the network predicts: regions, or classes with background."""
        return len(self.regions) if self.has_regions else len(self.classes)
