"""Having PyTorch compile the backbone, where a config says so."""

from mmengine.runner import Runner

from mmbiformer.errors import UserError

from .parts import find_backbone


def compile_backbone(runner: Runner) -> None:
    """Compile the blocks of the backbone as ``compile`` of the config says, and nothing else.

    mmengine would compile the whole step of the model: its losses and post-processing, which
    depend on what is in the images, break into many parts, and those for each size again.

    Raises:
        UserError: If ``compile`` is no option, or the backbone cannot be compiled so.
    """
    options = runner.cfg.pop('compile', None)  # so that mmengine compiles nothing
    if options is None or options is False:
        return
    if options is not True and not isinstance(options, dict):
        raise UserError(
            f'compile={options!r} must be True, False or a dict of options of torch.compile, as '
            "dict(mode='max-autotune')"
        )
    backbone = find_backbone(runner.model)
    if not hasattr(backbone, 'compile_blocks'):
        raise UserError(
            f'compile={options!r}: the backbone, a {type(backbone).__name__}, is none of '
            "mmbiformer's, whose blocks can be compiled for maps of any size: leave compile out"
        )
    try:
        backbone.compile_blocks(**({} if options is True else options))
    except Exception as error:  # backends and modes are looked up in many ways
        reason = ' '.join(str(error).split())
        raise UserError(f'compile={options!r} cannot be done: {reason}') from error
    runner.logger.info(
        "the backbone's blocks are compiled when they first run, which takes a minute or more"
    )
