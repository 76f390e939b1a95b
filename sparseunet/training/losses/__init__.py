"""What a network is trained to make small, by name."""

from typing import TYPE_CHECKING

from sparseunet.named_functions import load_function
from sparseunet.training.choices import LOSSES, Named

if TYPE_CHECKING:
    from sparseunet.training.losses.comparison import Loss


def load_loss(name: Named) -> "Loss":
    """Return the loss of that name, or the function at `package.module:function`.

    Raises:
        RequestError: There is no such loss; lists those there are.
    """
    loss: Loss = load_function(name, LOSSES, what="loss")
    return loss
