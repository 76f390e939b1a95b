"""Several processes that train one network together, each on its share of every batch.

Each process holds the whole network and passes its share of the batch through it. Two sums make the
result that of one process: the sums inside the loss, whose gradient each process follows to its own
voxels only, and then the gradients themselves. So the mean of unequal shares is exact, which an
average of gradients is not, and a parameter that no output depends on has no gradient anywhere.
"""

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn

from sparseunet.errors import RequestError, SparseUNetError

TIMEOUT = timedelta(minutes=10)
"""Longest time a process waits for the others, e.g. for a checkpoint to be written."""
_REPORTER_KEY, _NUM_ASKED_KEY = "who_tells", "how_many_asked"
_WAIT_FOR_OTHERS_S = 5.0
"""Seconds for which the first process keeps the store open for others that fail, too."""

T = TypeVar("T")


class OtherProcessLostError(SparseUNetError):
    """Another process of the training has ended, or does not answer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Processes:
    """Which of the processes of one training this is. Methods of the only one do nothing.

    Every process calls the same methods in the same order.

    Raises:
        OtherProcessLostError: By every method but `total`'s backward pass: another has ended.
    """

    rank: int = 0
    """0 to count - 1. The first writes all files."""
    count: int = 1
    local_rank: int = 0
    """The same among the processes of this machine; the number of its GPU."""
    address: str = ""
    """`host:port` at which they meet; "" for one process."""

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes files."""
        return self.rank == 0

    def share(self, batch_size: int) -> slice:
        """Return which samples of a batch are this process' own; shares differ by one at most.

        Raises:
            RequestError: A process would have none.
        """
        if batch_size < self.count:
            raise RequestError(
                f"A batch of {batch_size} cannot be shared among {self.count} processes; start "
                f"{batch_size} at most, or train with a batch of {self.count} or more.",
                setting="batch_size",
            )
        edges = [batch_size * rank // self.count for rank in (self.rank, self.rank + 1)]
        return slice(*edges)

    def total(self, sums: Tensor) -> Tensor:
        """Return the sum of a tensor over all processes, the same bits in each.

        Its gradient is that of this process' own summand: with all gradients summed afterwards
        (`sum_gradients`) that is the gradient of the whole.
        """
        if self.count == 1:
            return sums
        return with_value(sums, _all_reduce(sums.detach().clone()))

    def sum_gradients(self, network: nn.Module) -> None:
        """Replace every gradient by its sum over all processes."""
        if self.count == 1:
            return
        gradients = [each.grad for each in network.parameters() if each.grad is not None]
        summed = _all_reduce(torch.cat([gradient.flatten() for gradient in gradients]))
        parts = summed.split([gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view(gradient.shape))

    def highest(self, number: int) -> int:
        """Return the highest of the numbers that the processes give."""
        if self.count == 1:
            return number
        return int(_all_reduce(torch.tensor(number), distributed.ReduceOp.MAX))

    def wait(self) -> None:
        """Wait until every process is here."""
        self.highest(0)

    @contextmanager
    def first_alone(self) -> Iterator[None]:
        """Let the first process do the block before all others do."""
        if not self.is_first:
            self.wait()
        yield
        if self.is_first:
            self.wait()

    def require_same(self, what: str, found: Any) -> None:
        """Refuse to train where processes disagree, e.g. because machines see other files.

        Raises:
            RequestError: `str(found)` is not the same in all; names `what`.
        """
        number = int.from_bytes(hashlib.sha256(str(found).encode()).digest()[:7], "big")
        if self.highest(number) != -self.highest(-number):
            raise RequestError(
                f"The processes of this training differ in {what}. Give all of them the same "
                "command, the same version of sparseunet and the same files."
            )


ALONE = Processes()
"""The only process of a training, as without `torchrun`."""


@contextmanager
def joined(processes: Processes) -> Iterator["Group"]:
    """Meet the other processes, and leave them when the block ends, however it ends.

    Sums of tensors on the CPU go through gloo, those on GPUs through nccl. No thread of gloo
    outlives the block: one that still held a tensor when Python ended would abort the process.

    Raises:
        OtherProcessLostError: The others do not come.
        RequestError: This build of torch cannot do it.
    """
    if not distributed.is_available():
        raise RequestError("This build of torch cannot train in several processes; start one.")
    backend = "cpu:gloo"
    if torch.cuda.is_available() and distributed.is_nccl_available():
        backend = "cpu:gloo,cuda:nccl"
    url = f"tcp://{processes.address}?rank={processes.rank}&world_size={processes.count}"
    store, _, _ = _raise_if_others_lost(lambda: next(distributed.rendezvous(url, timeout=TIMEOUT)))
    group = Group(store=store, rank=processes.rank, count=processes.count)
    try:
        _raise_if_others_lost(
            lambda: distributed.init_process_group(
                backend,
                store=distributed.PrefixStore("group", store),
                rank=processes.rank,
                world_size=processes.count,
                timeout=TIMEOUT,
            )
        )
        processes.wait()
        yield group
    except BaseException as error:
        _end_process_group(is_error=True)
        if isinstance(error, Exception | SystemExit):
            group.let_others_ask()
        raise
    _end_process_group(is_error=False)


def may_fork() -> bool:
    """Whether this process may fork: not while it is one of several.

    gloo's threads may hold a lock at that moment, for which the forked process waits for ever.
    """
    return not (distributed.is_available() and distributed.is_initialized())


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """Store through which failing processes agree on the one that reports the error."""

    store: Any
    rank: int
    count: int

    def tells(self) -> bool:
        """Return whether this process shall report its error.

        The first process that calls this does; so does one that cannot reach the others.
        """
        own_rank = str(self.rank)
        try:
            first: bytes = self.store.compare_set(_REPORTER_KEY, "", own_rank)
            self.store.add(_NUM_ASKED_KEY, 1)
        except RuntimeError:
            return True
        return first.decode() == own_rank

    def let_others_ask(self) -> None:
        """Keep the store open until every process has called `tells`, in the process that holds it.

        Waits five seconds at most, because some processes may have been killed.
        """
        end_s = time.monotonic() + _WAIT_FOR_OTHERS_S
        while self.rank == 0 and time.monotonic() < end_s:
            if self.store.add(_NUM_ASKED_KEY, 0) >= self.count:
                return
            time.sleep(0.02)


def with_value(sums: Tensor, value: Tensor) -> Tensor:
    """Return `value` with the gradient of `sums`, as if the difference were a constant."""
    return _WithValue.apply(sums, value)


class _WithValue(torch.autograd.Function):
    @staticmethod
    def forward(_: Any, __: Tensor, value: Tensor) -> Tensor:
        return value.view_as(value)

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


def prepare_network(network: nn.Module, *, device: torch.device, num_parts: int) -> nn.Module:
    """Return the network for a batch that passes it in parts: in processes, or one after another.

    Batch norm is computed from the whole batch; of the norms only it needs more than one sample.

    Args:
        network: As it is trained in one process.
        device: On which it will be trained.
        num_parts: Into which each process divides its share.

    Raises:
        RequestError: The network has batch norm, and on this device processes cannot share it.
    """
    norms = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
    if not any(isinstance(module, norms) for module in network.modules()):
        return network
    if num_parts > 1:
        raise RequestError(
            "This network has batch norm, whose result depends on the whole batch, so the batch "
            "cannot be divided; leave it whole and use smaller patches, fewer base features, or a "
            "network with instance norm.",
            setting="accumulate",
        )
    if device.type != "cuda":
        raise RequestError(
            "This network has batch norm, which processes on a CPU cannot share; train it in one "
            "process, or on GPUs."
        )
    synchronised: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(network)
    return synchronised


def _all_reduce(tensor: Tensor, operation: Any = distributed.ReduceOp.SUM) -> Tensor:
    _raise_if_others_lost(lambda: distributed.all_reduce(tensor, operation))
    return tensor


def _raise_if_others_lost(action: Callable[[], T]) -> T:
    """Do what fails if another process has ended.

    The error of torch is not kept, not even as the context of ours: its frames hold the group, and
    while something does, the threads of gloo go on.
    """
    try:
        return action()
    except RuntimeError as error:
        reason = str(error).partition("\n")[0][:200]
    raise OtherProcessLostError(
        "Another process of this training has ended or does not answer, so this one ends, too. "
        "The last checkpoint is kept: run the same command again to go on. If no process says "
        f"why it ended, the system may have killed it for memory. ({reason})"
    )


def _end_process_group(*, is_error: bool) -> None:
    """End the threads of this process' group, if there is one.

    A thread releases a tensor only after it has reported the sum, which needs a running Python
    interpreter. After an error nccl is aborted: to end in order it
    would wait for what will never come.
    """
    if not distributed.is_initialized():
        return
    if is_error and "nccl" in distributed.get_backend_config():
        distributed.distributed_c10d._abort_process_group()
    else:
        distributed.destroy_process_group()
