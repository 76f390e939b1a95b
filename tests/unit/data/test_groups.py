"""Scans that belong together are declared, and missed where they are not."""

import pytest

from sparseunet.artifacts import read_json, write_json
from sparseunet.data.check import check_dataset
from sparseunet.data.groups import examine_groups, parse_groups
from sparseunet.data.synthetic import make_dataset
from sparseunet.errors import DatasetError, Severity

ACDC = [f"patient{patient:03d}_frame{frame:02d}" for patient in (1, 2, 3) for frame in (1, 12)]
PATIENTS = [name[:10] for name in ACDC]


@pytest.mark.parametrize(
    "declared",
    ["(.+)_frame", "patient...", dict(zip(ACDC, PATIENTS, strict=True)), "(.+?)(?:_frame.*)?$"],
)
def test_groups_are_an_expression_or_an_object(declared):
    found = parse_groups({"groups": declared}, ACDC)
    assert found == dict(zip(ACDC, PATIENTS, strict=True))


def test_nothing_declared_is_no_group_at_all():
    assert parse_groups({}, ACDC) is None


@pytest.mark.parametrize(
    ("declared", "found"),
    [
        ("(patient", "no regular expression"),
        ("(patient001)_", "4 of 6 cases no group: patient002_frame01"),
        ("(x)?p", "6 of 6 cases"),
        ({ACDC[0]: "a"}, "5 of 6 cases"),
        ({ACDC[0]: 1}, "another kind"),
        (["a"], "another kind"),
    ],
)
def test_a_wrong_declaration_says_what_is_expected(declared, found):
    with pytest.raises(DatasetError, match="regular expression for the start") as caught:
        parse_groups({"groups": declared}, ACDC)
    assert found in str(caught.value)


@pytest.mark.parametrize(
    "names",
    [
        ACDC,
        ["anna_t0", "anna_t1", "ben_t0"],
        ["s1-visit1", "s1-visit2", "s2-visit1"],
        ["knee7_left", "knee7_right"],
        ["p1_ED", "p1_ES", "p2", "p2_x"],
    ],
)
def test_names_of_several_scans_of_a_patient_are_noticed_and_the_proposed_fix_works(names):
    (note,) = examine_groups({}, names)
    assert note.severity is Severity.NOTE
    pattern = note.fix.partition('"groups": "')[2].partition('" before')[0]
    groups = parse_groups({"groups": pattern}, names)
    assert groups[names[0]] == groups[names[1]] != names[0]


@pytest.mark.parametrize(
    "names", [["hippocampus_001", "hippocampus_002"], ["a_t0", "b_t0"], ["scan_1", "scan_2"], []]
)
def test_names_of_different_patients_are_not(names):
    assert examine_groups({}, names) == []


def test_the_check_tells_and_refuses(tmp_path):
    folder = tmp_path / "Dataset001_Shapes"
    make_dataset(folder, num_training=2, num_test=1)
    names = sorted(path.name[:-7] for path in (folder / "labelsTr").iterdir())
    for number, name in enumerate(names):
        for path in folder.glob(f"*Tr/{name}*"):
            path.rename(path.with_name(path.name.replace(name, f"anna_visit{number}")))
    notes = [problem.found for problem in check_dataset(folder).problems]
    assert any("several scans of one patient (anna_visit0, anna_visit1)" in note for note in notes)
    description = read_json(folder / "dataset.json")
    write_json(folder / "dataset.json", description | {"groups": "(.+)_visit"})
    report = check_dataset(folder)
    assert report.accepted
    assert not any("several scans" in problem.found for problem in report.problems)
    write_json(folder / "dataset.json", description | {"groups": "ben"})
    assert not check_dataset(folder).accepted
