"""Names in `dataset.json` that nearly mean something, and therefore mean nothing."""

import re
from collections.abc import Sequence

from sparseunet.data.labels import LabelSchema
from sparseunet.errors import Problem, Severity
from sparseunet.workspace import DATASET_JSON

_IGNORE_WORDS = {"ignore", "ignored", "unlabelled", "unlabeled", "unannotated", "void"}
_NOT = {"not annotated", "not labelled", "not labeled", "ignore label", "label ignore"}
_CT = "ct"


def find_near_misses(channel_names: Sequence[str], labels: LabelSchema) -> list[Problem]:
    """Return a warning for a class that may stand for the ignore label, and for a near CT channel.

    Only `ignore` is the ignore label, and only the channel `CT` (in any case) is normalised as CT,
    as in nnU-Net 2.8.1. `Ignore` is a class to be learnt, and `CT_arterial` gets a z-score.
    """
    problems = []
    highest = max(labels.values, default=0)
    for name, values in labels.foreground.items():
        words = " ".join(_words(name))
        if labels.ignore is None and values == (highest,) and words in _IGNORE_WORDS | _NOT:
            problems.append(
                _near(
                    f"a class {name!r} with the highest label value, which is learnt as any other",
                    'the name "ignore" for what nobody annotated',
                    f'rename {name!r} to "ignore", or nothing if it is a class',
                )
            )
    problems += [
        _near(
            f"a channel {name!r}, which is normalised by each scan's own mean and deviation",
            'the name "CT" for CT, which is normalised by the intensities of the dataset',
            'rename the channel to "CT", or nothing if it is none',
        )
        for name in channel_names
        if _CT in _words(name) and name.casefold() != _CT
    ]
    return problems


def _words(name: str) -> list[str]:
    return [word for word in re.split(r"[^a-z]+", name.casefold()) if word]


def _near(found: str, expected: str, fix: str) -> Problem:
    return Problem(
        severity=Severity.WARNING, file=DATASET_JSON, found=found, expected=expected, fix=fix
    )
