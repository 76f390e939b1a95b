"""Make batches with sparseunet's loader and nothing else, as in_nnunet/make_batches.py does.

Arguments: PREPROCESSED_DATASET CONFIGURATION BATCH_SIZE COUNT OUTPUT.
"""

import argparse
import json
import time
from pathlib import Path

import torch

from sparseunet.data.annotation import Source
from sparseunet.networks.device import keep_freed_memory
from sparseunet.planning.nnunet_plans import plan_from_nnunet
from sparseunet.preprocessing.store import CaseStore
from sparseunet.training.loader import BatchDataset, BatchRules, summarise_cases


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for word in ("folder", "name", "batch_size", "count", "output"):
        parser.add_argument(word)
    folder, name, batch_size, count, output = vars(parser.parse_args()).values()
    keep_freed_memory()
    torch.set_num_threads(1)
    plans_file = Path(folder) / "nnUNetPlans.json"
    plan = plan_from_nnunet(json.loads(plans_file.read_text()), source=str(plans_file))
    configuration = plan.configurations[name]
    store = CaseStore(Path(folder) / configuration.data_identifier)
    rules = BatchRules(
        patch_size=configuration.patch_size,
        batch_size=int(batch_size),
        foreground_share=0.33,
        augmentation="nnunet",
        mirror_axes=tuple(range(configuration.dimensions)),
        blank_outside=any(configuration.use_mask_for_norm),
        trust={Source.MANUAL: 1.0},
        seed=0,
        stream=0,
    )
    start = time.perf_counter()
    batches = BatchDataset(store, summarise_cases(store, store.cases), rules)
    start_s = time.perf_counter() - start
    wall_s, processor_s, patches = [], [], []
    for step in range(int(count)):
        start, processor = time.perf_counter(), time.process_time()
        image = batches[step].image_BCZYX
        wall_s.append(time.perf_counter() - start)
        processor_s.append(time.process_time() - processor)
        patches += [
            [float(patch.mean()), float(patch.std()), float((patch == 0).float().mean())]
            for patch in image[:, 0]
        ]
    figures = {
        "start_s": start_s,
        "wall_s": wall_s,
        "processor_s": processor_s,
        "patches": patches,
    }
    Path(output).write_text(json.dumps(figures))


if __name__ == "__main__":
    main()
