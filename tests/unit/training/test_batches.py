"""Processes that make batches may die; the batches stay the same."""

import logging
import multiprocessing
import os
import re
import signal
from contextlib import closing

import pytest
import torch
from tiny_training import make_store
from torch import distributed
from torch.utils.data import get_worker_info

from sparseunet.data.annotation import Source
from sparseunet.errors import SparseUNetError
from sparseunet.training.batches import batch_bytes, fitting_workers, load_batches
from sparseunet.training.loader import BatchDataset, BatchRules, summarise_cases

STEPS = range(3, 15)


class Deadly(BatchDataset):
    """Kills the process that makes the batch of one step, unless it is the main one."""

    step, number = 6, signal.SIGKILL

    def __getitem__(self, step):
        if step == self.step and get_worker_info() is not None:
            os.kill(os.getpid(), self.number)
        return super().__getitem__(step)


@pytest.fixture
def store(tmp_path):
    return make_store(tmp_path / "data", slices=[4, 8])


def make_dataset(store, kind=BatchDataset, **memory):
    rules = BatchRules(
        patch_size=(8, 16, 16),
        batch_size=2,
        foreground_share=0.33,
        augmentation="nnunet",
        mirror_axes=(0, 1, 2),
        blank_outside=False,
        trust={Source.MANUAL: 1.0},
        seed=0,
        stream=0,
    )
    return kind(store, summarise_cases(store, store.cases), rules, **memory)


def load(dataset, num_workers):
    return load_batches(dataset, steps=STEPS, num_workers=num_workers, pin_memory=False)


def assert_same_batches(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one.image_BCZYX, other.image_BCZYX)
        assert torch.equal(one.labels_BZYX, other.labels_BZYX)
        assert torch.equal(one.weight_BZYX, other.weight_BZYX)


def load_and_kill(store, num_workers, *, kill_after):
    """Load all batches while one of the workers is killed; return them and the killed process."""
    found, others = [], set(multiprocessing.active_children())
    with closing(load(make_dataset(store), num_workers)) as batches:
        for batch in batches:
            found.append(batch)
            if len(found) == kill_after + 1:
                victim, *rest = set(multiprocessing.active_children()) - others
                assert len(rest) == num_workers - 1
                os.kill(victim.pid, signal.SIGKILL)
    assert set(multiprocessing.active_children()) == others
    return found, victim


@pytest.fixture
def group():
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.mark.parametrize("kill_after", [0, 5])
def test_a_killed_worker_is_named_and_replaced_and_no_batch_changes(store, caplog, kill_after):
    found, victim = load_and_kill(store, 2, kill_after=kill_after)
    assert_same_batches(found, list(load(make_dataset(store), 0)))
    (record,) = caplog.records
    told = record.getMessage()
    assert re.match(rf"Worker [01] \(pid {victim.pid}\).*SIGKILL.*memory.*fewer workers", told)


@pytest.mark.skipif(
    "forkserver" not in multiprocessing.get_all_start_methods(), reason="no fork on this system"
)
def test_beside_the_threads_of_a_group_no_worker_is_forked(store, caplog, group):
    found, victim = load_and_kill(store, 1, kill_after=0)
    assert isinstance(victim, multiprocessing.get_context("forkserver").Process)
    assert_same_batches(found, list(load(make_dataset(store), 0)))
    (record,) = caplog.records
    assert re.match(rf"Worker 0 \(pid {victim.pid}\).*SIGKILL", record.getMessage())


def test_where_workers_keep_running_out_of_memory_batches_are_made_without(store, caplog):
    found = list(load(make_dataset(store, Deadly), 1))
    assert_same_batches(found, list(load(make_dataset(store), 0)))
    assert len(caplog.records) == 3
    assert "without processes" in caplog.records[-1].getMessage()


def test_where_workers_keep_crashing_otherwise_one_error_says_so(store):
    dataset = make_dataset(store, Deadly)
    dataset.number = signal.SIGUSR1
    with pytest.raises(SparseUNetError, match=r"SIGUSR1; 3 times in a row at step \d") as failure:
        list(load(dataset, 1))
    assert failure.value.exit_code == 1


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_damaged_file_is_named_with_its_case(store, num_workers):
    damaged = store.folder / "case_1.image.b2nd"
    damaged.write_bytes(b"not what it was")
    with pytest.raises(SparseUNetError, match=r"case_1 .*case_1\.image\.b2nd") as failure:
        list(load(make_dataset(store, memory_bytes=0), num_workers))
    assert failure.value.exit_code == 1
    assert "Traceback" not in str(failure.value)
    with pytest.raises(SparseUNetError, match=r"case_1 .*case_1\.image\.b2nd") as failure:
        make_dataset(store)  # whose cases fit into memory and are read before the first step
    assert failure.value.exit_code == 2


def test_leaving_early_leaves_no_process_behind(store, caplog):
    others = set(multiprocessing.active_children())
    handler = signal.getsignal(signal.SIGCHLD)
    with caplog.at_level(logging.WARNING), closing(load(make_dataset(store), 2)) as batches:
        next(batches)
        assert len(set(multiprocessing.active_children()) - others) == 2
    assert set(multiprocessing.active_children()) == others
    assert signal.getsignal(signal.SIGCHLD) == handler
    assert not caplog.records


def test_workers_are_as_many_as_shared_memory_holds_batches_for(store):
    mib = 2**20
    assert fitting_workers(4, batch_bytes=10 * mib, free_bytes=1000 * mib) == 4
    assert fitting_workers(4, batch_bytes=10 * mib, free_bytes=64 * mib) == 1
    assert fitting_workers(4, batch_bytes=40 * mib, free_bytes=64 * mib) == 0
    assert fitting_workers(1, batch_bytes=0, free_bytes=0) == 0
    dataset = make_dataset(store)
    batch = dataset[0]
    tensors = (batch.image_BCZYX, batch.labels_BZYX, batch.weight_BZYX)
    assert batch_bytes(dataset) == sum(tensor.nbytes for tensor in tensors)
