"""A raw dataset: its cases, what they hold and how they are split."""

from dataclasses import dataclass
from pathlib import Path

from sparseunet.data.labels import LabelSchema


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """The files of one scan.

    Attributes:
        name: Case identifier: the file name without channel number and ending.
        images: One file per channel, in channel order.
        label: The label file, or None for an unlabelled case.
        provenance: The file that says who labelled each voxel (`Source`); None if a person
            labelled them all.
        confidence: The file with the confidence in each label in percent; None for full
            confidence.
    """

    name: str
    images: tuple[Path, ...]
    label: Path | None
    provenance: Path | None = None
    confidence: Path | None = None

    @property
    def label_files(self) -> tuple[Path, ...]:
        """The files that the annotation depends on."""
        files = (self.label, self.provenance, self.confidence)
        return tuple(path for path in files if path is not None)


@dataclass(frozen=True, kw_only=True, slots=True)
class Dataset:
    """A raw dataset in nnU-Net's layout, as declared by its `dataset.json`.

    Attributes:
        folder: Of the dataset.
        name: Folder name, e.g. `Dataset004_Hippocampus`.
        channel_names: In channel order.
        labels: Classes and regions.
        file_ending: With the dot, e.g. `.nii.gz`.
        cases: Training cases, sorted by name.
        description: The whole content of `dataset.json`.
    """

    folder: Path
    name: str
    channel_names: tuple[str, ...]
    labels: LabelSchema
    file_ending: str
    cases: tuple[Case, ...]
    description: dict

    def __repr__(self) -> str:
        labelled = sum(case.label is not None for case in self.cases)
        return (
            f"Dataset({self.name}, {len(self.cases)} cases, {labelled} with labels, channels "
            f"{', '.join(self.channel_names)}, classes {', '.join(self.labels.foreground)})"
        )

    def case(self, name: str) -> Case:
        """Return the case called `name`.

        Raises:
            KeyError: There is no such case.
        """
        for case in self.cases:
            if case.name == name:
                return case
        raise KeyError(f"{self.name} has no case {name!r}.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    """Which cases one fold trains on and which it validates on.

    Attributes:
        train: Cases that are trained on.
        val: Cases that are validated on; none for the fold `all`.
    """

    train: tuple[str, ...]
    val: tuple[str, ...]
