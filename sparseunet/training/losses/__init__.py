"""What a network is trained to make small, by name."""

from typing import TYPE_CHECKING

from sparseunet.named_functions import load_function

if TYPE_CHECKING:
    from sparseunet.training.losses.comparison import Loss

_HERE = "sparseunet.training.losses.named"
LOSSES = {
    "dice_ce": f"{_HERE}:dice_cross_entropy",
    "ce": f"{_HERE}:cross_entropy",
    "dice": f"{_HERE}:dice",
    "focal": f"{_HERE}:focal",
    "dice_focal": f"{_HERE}:dice_focal",
    "topk": f"{_HERE}:top_k",
    "dice_topk": f"{_HERE}:dice_top_k",
}
"""Name on the command line to loss; imported when it is used, so that asking for help needs no
torch."""


def load_loss(name: str) -> "Loss":
    """Return the loss of that name, or the function at `package.module:function`.

    Raises:
        RequestError: There is no such loss; lists those there are.
    """
    loss: Loss = load_function(name, LOSSES, what="loss")
    return loss
