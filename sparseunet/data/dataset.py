"""A raw dataset: its cases, what they hold and how they are split."""

from dataclasses import dataclass
from pathlib import Path

from sparseunet.data.labels import LabelSchema


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """The files of one scan."""

    name: str
    """Case identifier: the file name without channel number and ending."""
    images: tuple[Path, ...]
    """One file per channel, in channel order."""
    label: Path | None
    """The label file, or None for an unlabelled case."""
    provenance: Path | None = None
    """The file that says who labelled each voxel (`Source`); None if a person labelled them all."""
    confidence: Path | None = None
    """The file with the confidence in each label in percent; None for full confidence."""

    @property
    def label_files(self) -> tuple[Path, ...]:
        """The files that the annotation depends on."""
        files = (self.label, self.provenance, self.confidence)
        return tuple(path for path in files if path is not None)


@dataclass(frozen=True, kw_only=True, slots=True)
class Dataset:
    """A raw dataset in nnU-Net's layout, as declared by its `dataset.json`."""

    folder: Path
    name: str
    """Folder name, e.g. `Dataset004_Hippocampus`."""
    channel_names: tuple[str, ...]
    labels: LabelSchema
    file_ending: str
    """With the dot, e.g. `.nii.gz`."""
    cases: tuple[Case, ...]
    """Training cases, sorted by name."""
    description: dict
    """The whole content of `dataset.json`."""

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
    """Which cases one fold trains on and which it validates on."""

    train: tuple[str, ...]
    val: tuple[str, ...]
