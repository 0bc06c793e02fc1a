"""Loading the weights of a whole model, strictly."""

from pathlib import Path

from mmengine.model import is_model_wrapper
from mmengine.runner import load_checkpoint
from torch import nn

from mmbiformer.checkpoints import check_digest
from mmbiformer.errors import UserError


def check_exists(checkpoint: str) -> None:
    """Refuse a checkpoint file that is missing or is not what its manifest says."""
    if '://' not in checkpoint and not Path(checkpoint).is_file():
        raise UserError(f"checkpoint '{checkpoint}' not found: check the path")
    check_digest(checkpoint)


def load_weights(model: nn.Module, checkpoint: str) -> dict:
    """Load a whole model's weights; every name and shape must fit.

    Args:
        model (nn.Module): Wrapped or not.
        checkpoint (str): A file or an address.

    Returns:
        dict: All that the checkpoint has.

    Raises:
        UserError: If it does not fit.
    """
    # Within DDP there may be a TTA model, and mmengine's loader unwraps one of the two alone.
    model = model.module if is_model_wrapper(model) else model
    try:
        return load_checkpoint(model, checkpoint, map_location='cpu', strict=True)
    except UserError:
        raise
    except Exception as error:  # torch and pickle raise many kinds
        raise UserError(f"checkpoint '{checkpoint}' does not fit the config: {error}") from error
