"""`sparseunet plan_annotation`: what a person types and reads."""

from pathlib import Path

import pytest

from sparseunet.annotation.annotation_plan import read_annotation_plan
from sparseunet.cli.main import main
from sparseunet.data.annotation_record import (
    AnnotationRecord,
    AnnotationRecords,
    write_annotation_records,
)
from sparseunet.data.synthetic import make_dataset


@pytest.fixture
def workspace(tmp_path) -> Path:
    """A workspace with one dense dataset of six scans."""
    make_dataset(tmp_path / "raw" / "Dataset004_Shapes", num_training=6, num_test=0)
    return tmp_path


def plan(workspace: Path, *words: str, output: str = "plan.json") -> int:
    start = ["--workspace", str(workspace), "plan_annotation", "-o", str(workspace / output)]
    return main([*start, *(("-d", "4") if "-i" not in words else ()), *words])


def test_the_alternatives_stand_side_by_side_with_their_evidence(workspace, capsys):
    assert plan(workspace, "--budget", "14slices", "--selector", "fixed", "--seed", "0") == 0
    out = capsys.readouterr().out
    assert "Dataset004_Shapes: 6 scans" in out
    table = [line.split() for line in out.splitlines() if line.strip().endswith("%")]
    chosen = [row for row in table if row[0] == ">"]
    assert chosen == [row for row in chosen if row[1:3] == ["6", "14"]]
    assert len(chosen) == 1
    assert {row[1 if row[0] in "!>" else 0] for row in table} == {"6", "4", "3", "2", "1"}
    for part in (
        "Zhang et al. (2025), table 4",
        "Weak for 3D",
        "Stein et al.",
        "nothing was measured yet",
    ):
        assert part in out
    assert "start with scan_000, z = " in out
    assert read_annotation_plan(workspace / "plan.json").num_slices == 14


def test_an_existing_plan_is_not_overwritten(workspace, capsys):
    assert plan(workspace, "--budget", "12slices") == 0
    before = (workspace / "plan.json").read_bytes()
    assert plan(workspace, "--budget", "6slices") == 2
    assert "not overwritten" in capsys.readouterr().err
    assert (workspace / "plan.json").read_bytes() == before


def test_a_plain_folder_of_scans_is_planned_too(workspace):
    folder = workspace / "raw" / "Dataset004_Shapes" / "imagesTr"
    assert plan(workspace, "-i", str(folder), "--budget", "5%") == 0
    made = read_annotation_plan(workspace / "plan.json")
    assert made.dataset == "imagesTr"
    assert {case.case for case in made.cases} <= {f"scan_{n:03d}" for n in range(6)}


def test_measured_minutes_beside_the_dataset_change_the_cost(workspace, capsys):
    record = AnnotationRecord(
        axis=0,
        num_slices=20,
        annotated_slices=(4, 10),
        annotated_classes=("organ",),
        minutes=60.0,
    )
    records = AnnotationRecords(cases={"scan_000": record})
    assert plan(workspace, "--budget", "60min") == 0
    quick = read_annotation_plan(workspace / "plan.json").num_slices
    write_annotation_records(workspace / "raw" / "Dataset004_Shapes" / "annotation.json", records)
    assert plan(workspace, "--budget", "60min", output="slow.json") == 0
    assert read_annotation_plan(workspace / "slow.json").num_slices < quick / 5
    assert "fitted to 1 measured cases" in capsys.readouterr().out
    assert plan(workspace, "--budget", "2h", "--minutes-per-slice", "5", output="x.json") == 2
    assert "nothing was measured" in capsys.readouterr().err


def test_what_a_slice_takes_can_be_said(workspace):
    assert plan(workspace, "--budget", "60min", "--minutes-per-slice", "20") == 0
    made = read_annotation_plan(workspace / "plan.json")
    assert 1 <= made.num_slices <= 3
    assert made.expected_minutes <= 60


def test_options_reach_the_plan(workspace):
    words = ["--budget", "3slices", "--per-case", "--axis", "2", "--volumes", "2", "--seed", "7"]
    assert plan(workspace, *words, "--choose-volumes", "farthest", "--dimensions", "2") == 0
    made = read_annotation_plan(workspace / "plan.json")
    assert (made.budget, made.seed, made.num_slices) == ("3slices per case", 7, 6)
    assert {case.axis for case in made.cases} == {2}
    assert made.provenance["volume_choice"] == "farthest"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--budget", "0slices"], "buys nothing"),
        (["--budget=-3slices"], "buys nothing"),
        (["--budget", "9999slices"], "9999 slices of the about"),
        (["--budget", "120%"], "more than there is"),
        (["--budget", "1min"], "not one slice"),
        (["--budget", "many"], "not understood"),
        (["--budget", "10%", "--volumes", "7"], "7 of 6 scans"),
        (["--budget", "10%", "--volumes", "few"], "'few' is not understood"),
        (["--budget", "10%", "--selector", "clever"], "no selector 'clever'"),
        (["--budget", "10%", "--minutes-per-slice", "0"], "more than 0 minutes"),
        (["--budget", "10%", "-i", "nowhere"], "no scan"),
        (["--budget", "10%", "--round", "2"], "--round has no effect without --after"),
        (["--budget", "10%", "--after", "run", "--volumes", "2"], "no effect with --after"),
        (["--budget", "10%", "--times", "nowhere.json"], "nowhere.json does not exist"),
    ],
)
def test_requests_that_make_no_sense_end_with_code_2(workspace, capsys, words, message):
    assert plan(workspace, *words) == 2
    assert message in capsys.readouterr().err
    assert not (workspace / "plan.json").exists()


@pytest.mark.parametrize("words", [["--axis", "3"], ["--axis", "z"], ["--dimensions", "4"]])
def test_an_axis_that_is_not_there_is_refused_by_the_parser(workspace, words):
    with pytest.raises(SystemExit) as stop:
        plan(workspace, "--budget", "10%", *words)
    assert stop.value.code == 2


def test_all_problems_are_in_one_error(workspace, capsys):
    assert plan(workspace, "--budget", "0h", "--selector", "clever", "--volumes", "9") == 2
    err = capsys.readouterr().err
    for part in (
        "(--budget): found '0h' buys nothing; expected more than 0;",
        "(--selector): found",
        "no selector 'clever'",
        "(--volumes): found 9 of 6 scans",
    ):
        assert part in err


def test_planning_imports_no_torch(workspace):
    import subprocess
    import sys

    script = (
        "import sys\nfrom sparseunet.cli.main import main\n"
        f"words = ['--workspace', {str(workspace)!r}, 'plan_annotation', '-d', '4']\n"
        f"words += ['--budget', '10%', '-o', {str(workspace / 'plan.json')!r}]\n"
        "assert main(words) == 0\nassert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=600, capture_output=True)
