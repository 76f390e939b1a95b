"""Which scans belong together, for example to one patient, so that no fold tears them apart.

`groups` in `dataset.json` says so: a regular expression for the start of case names, whose first
group (or whole match) names the group, as in `"(.+)_frame"`, or an object from every case to its
group. nnU-Net 2.8.1 knows no groups and ignores the key.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from sparseunet.errors import DatasetError, Problem, Severity
from sparseunet.workspace import DATASET_JSON

_KEY = "groups"
_SEVERAL_SCANS = re.compile(
    r"(?P<subject>.+?)(?P<word>[_-](?:frame|visit|session|ses|scan|phase|timepoint|time|tp|t|day|week"
    r"|month|baseline|followup|left|right|pre|post|ed|es))[_-]?\d*$",
    re.IGNORECASE,
)
_NAMES_SHOWN = 5


def parse_groups(
    dataset_json: Mapping[str, Any], case_names: Sequence[str]
) -> dict[str, str] | None:
    """Return the group of each case, or None if the dataset declares none.

    Raises:
        DatasetError: `groups` is neither a regular expression nor an object, or leaves out cases.
    """
    groups, problems = _read(dataset_json, case_names)
    if problems:
        raise DatasetError(problems)
    return groups


def examine_groups(dataset_json: Mapping[str, Any], case_names: Sequence[str]) -> list[Problem]:
    """Return what is wrong with the declared groups, each an error.

    Where nothing is declared, names that look like several scans of one patient are a note.
    """
    if dataset_json.get(_KEY) is None:
        return _suspicion(case_names)
    return _read(dataset_json, case_names)[1]


def _read(
    dataset_json: Mapping[str, Any], case_names: Sequence[str]
) -> tuple[dict[str, str] | None, list[Problem]]:
    declared = dataset_json.get(_KEY)
    if declared is None:
        return None, []
    if isinstance(declared, str):
        try:
            pattern = re.compile(declared)
        except re.error as error:
            found = f"{_KEY} {declared!r}, which is no regular expression ({error})"
            return None, [_wrong(found, "correct it")]
        matches = {name: pattern.match(name) for name in case_names}
        groups = {name: match[min(1, pattern.groups)] for name, match in matches.items() if match}
    elif isinstance(declared, dict) and all(isinstance(group, str) for group in declared.values()):
        groups = {name: declared[name] for name in case_names if name in declared}
    else:
        return None, [_wrong(f"{_KEY} of another kind", "correct it")]
    missing = [name for name in case_names if not groups.get(name)]
    if missing:
        shown = ", ".join(missing[:_NAMES_SHOWN]) + ", ..." * (len(missing) > _NAMES_SHOWN)
        found = f"{_KEY} that give {len(missing)} of {len(case_names)} cases no group: {shown}"
        return None, [_wrong(found, "let it say a group for every case")]
    return groups, []


def _suspicion(case_names: Sequence[str]) -> list[Problem]:
    """Return a note if at least two cases seem to be of one patient."""
    matches = [match for match in map(_SEVERAL_SCANS.match, case_names) if match]
    scans = Counter(match["subject"] for match in matches)
    several = [match for match in matches if scans[match["subject"]] > 1]
    if not several:
        return []
    words = sorted({match["word"] for match in several})
    subject = several[0]["subject"]
    alike = [match.string for match in several if match["subject"] == subject]
    pattern = f"(.+?)(?:{'|'.join(f'{word}.*' for word in words)})?$"
    return [
        Problem(
            severity=Severity.NOTE,
            file=DATASET_JSON,
            found=f"names that look like several scans of one patient ({', '.join(alike[:3])})",
            expected=f"{_KEY}, so that no fold validates on a patient it is trained on",
            fix=f'if so, add "{_KEY}": "{pattern}" before the folds are made',
        )
    ]


def _wrong(found: str, fix: str) -> Problem:
    return Problem(
        file=DATASET_JSON,
        found=found,
        expected=f'"{_KEY}": a regular expression for the start of case names, e.g. "(.+)_frame", '
        'or an object {"case": "group", ...}',
        fix=fix,
    )
