"""Store what plans, preprocessed cases and runs are like, in `runs.json`.

    python tests/golden/make_runs.py

Needed only when any of it is meant to change; commit what `git diff` then shows. With `--old-run`
also trains `run_of_version_0_1`, which stands for runs that people have, so it should stay.
"""

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from golden_runs import (
    CONFIGURATIONS,
    DATASETS,
    DENSE,
    GOLDEN_JSON,
    OLD_RUN,
    OLD_TRAINING,
    PLANS,
    ROWS,
    TWENTY_STEPS,
    case_facts,
    make_workspace,
    plan_facts,
    predict_with_old_run,
    read,
    run_facts,
    train,
    train_on_one_thread,
    weight_facts,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--old-run", action="store_true", help="train run_of_version_0_1 again")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        workspace = make_workspace(Path(root))
        if arguments.old_run:
            _store_run(train(workspace, OLD_TRAINING))
        golden = _measure(workspace)
        scans = workspace / "raw" / DENSE / "imagesTs"
        golden["predicted_voxels"] = predict_with_old_run(scans, workspace / "segmented")
    GOLDEN_JSON.write_text(_to_text(golden) + "\n", encoding="utf-8")
    print(f"{GOLDEN_JSON}: {GOLDEN_JSON.stat().st_size} bytes")


def _store_run(fold: Path) -> None:
    stored = OLD_RUN / fold.name
    stored.mkdir(parents=True, exist_ok=True)
    for name in ("run.json", "log.jsonl", "checkpoint_final.pt"):
        shutil.copyfile(fold / name, stored / name)


def _measure(workspace: Path) -> dict:
    prepared = {name: workspace / "preprocessed" / name for name in DATASETS}
    cases = {
        f"{name} {configuration}": {
            path.stem: case_facts(path.parent, path.stem)
            for path in sorted((folder / f"{PLANS[0]}_{configuration}").glob("*.json"))
        }
        for name, folder in prepared.items()
        for configuration in CONFIGURATIONS
    }
    facts = {name: run_facts(train(workspace, row)) for name, row in ROWS.items()}
    weights = {
        name: weight_facts(train_on_one_thread(workspace, row))
        for name, row in TWENTY_STEPS.items()
    }
    return {
        "plans": {
            f"{name} {plans}": plan_facts(read(folder / f"{plans}.json"))
            for name, folder in prepared.items()
            for plans in PLANS
        },
        "splits": {name: read(folder / "splits_final.json") for name, folder in prepared.items()},
        "cases": cases,
        "runs": facts,
        "weights": weights,
    }


def _to_text(content: object, indent: str = "") -> str:
    """Return JSON that puts what holds no further mappings on one line, for `git diff`."""
    if not isinstance(content, dict) or not any(isinstance(v, dict) for v in content.values()):
        return json.dumps(content, ensure_ascii=False)
    deeper = indent + " "
    lines = [f"{deeper}{json.dumps(k)}: {_to_text(v, deeper)}" for k, v in content.items()]
    return "{\n" + ",\n".join(lines) + f"\n{indent}}}"


if __name__ == "__main__":
    main()
