"""Building the mmengine Runner of a training or test run."""

import logging
import os

from mmengine.config import Config, ConfigDict
from mmengine.dist import is_main_process
from mmengine.hooks import LoggerHook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from mmbiformer.checkpoints import check_resumable, find_newest
from mmbiformer.errors import UserError

from .building import explain
from .compiling import compile_backbone
from .config_checks.channels import check_channels
from .data import check_data
from .device import fit_to_device, set_amp
from .loading import check_loading
from .memory import SafeRunner, memory_explained
from .parts import iter_datasets, list_evaluators
from .recipe import advise_batch_size, set_auto_scale_lr
from .run_notes import write_notes
from .weights import check_exists, load_weights


def build_trainer(
    cfg: Config,
    *,
    launcher: str = 'none',
    resume: str | None = None,
    pretrained: str | None = None,
    amp: bool = False,
    auto_scale_lr: bool = False,
) -> Runner:
    """Build the Runner of a training run; ``runner.train()`` starts it.

    Args:
        cfg (Config): From :func:`load_config`; changed in place.
        launcher (str): 'none', 'pytorch', 'slurm' or 'mpi'.
        resume (str, optional): A checkpoint to go on from, or 'auto' for the newest in the work
            dir that verifies, as where the config resumes and names none.
        pretrained (str, optional): Checkpoint that the backbone starts from.
        amp (bool): Use automatic mixed precision even where the config does not.
        auto_scale_lr (bool): Scale the learning rate with the total batch size.

    Raises:
        UserError: If data or a checkpoint is missing, a part of the config cannot be built, or an
            option does not fit the config.
    """
    if amp:
        set_amp(cfg)
    if auto_scale_lr:
        set_auto_scale_lr(cfg)
    notices = []
    if resume == 'auto' or (cfg.get('resume') and not (resume or cfg.get('load_from'))):
        newest, passed_over = find_newest(checkpoint_folder(cfg))
        notices = [f'passed over: {reason}' for reason in passed_over]
        resume = str(newest)
    if resume is not None:
        cfg.resume, cfg.load_from = True, resume
    if pretrained is not None:
        if 'backbone' not in cfg.model:
            raise UserError('--pretrained needs a model with a backbone: use load_from instead')
        cfg.model.backbone.init_cfg = dict(type='Pretrained', checkpoint=pretrained)
    init_cfg = cfg.model.get('backbone', {}).get('init_cfg')
    init_cfg = init_cfg if isinstance(init_cfg, dict) else {}
    for checkpoint in (cfg.get('load_from'), init_cfg.get('checkpoint')):
        if checkpoint is not None:
            check_exists(checkpoint)
    resumes = cfg.get('resume') and cfg.get('load_from')
    if resumes:
        check_resumable(cfg.load_from)
    notices += check_data(cfg, ('train', 'val'))
    check_loading(cfg, ('train', 'val'))
    runner = _build_runner(cfg, launcher, notices, 'train', cfg.get('load_from'))
    if resumes:
        runner.logger.info(f"resuming from '{cfg.load_from}'")
        load_weights(runner.model, cfg.load_from)  # mmengine would only warn of what does not fit
    return runner


def build_tester(
    cfg: Config,
    checkpoint: str,
    *,
    launcher: str = 'none',
    out: str | None = None,
    show_dir: str | None = None,
    tta: bool = False,
) -> Runner:
    """Build the Runner of a test run with its weights loaded; ``runner.test()`` starts it.

    Args:
        cfg (Config): From :func:`load_config`; changed in place.
        checkpoint (str): Checkpoint of the whole model; every name and shape must fit, but for
            norms of the backbone's outputs, which may be absent and are then logged as new.
        launcher (str): 'none', 'pytorch', 'slurm' or 'mpi'.
        out (str, optional): Where predictions go: a ``.pkl`` file for detection and
            classification, a folder of label maps for segmentation.
        show_dir (str, optional): Folder for pictures of ground truth beside predictions.
        tta (bool): Use the test-time augmentation of the config.

    Raises:
        UserError: If data or the checkpoint is missing or of another architecture, or an option
            does not fit the config.
    """
    check_exists(checkpoint)
    notices = check_data(cfg, ('test',))
    check_loading(cfg, ('test',))
    if out is not None:
        _set_out(cfg, out)
    if show_dir is not None:
        _set_show_dir(cfg, show_dir)
    if tta:
        _set_tta(cfg)
    # A config that a resumed run dumped would have the runner load that run's latest instead.
    cfg.load_from, cfg.resume = None, False
    runner = _build_runner(cfg, launcher, notices, 'test', checkpoint)
    if not is_main_process():  # all processes would write the metrics to one file at once
        runner._hooks = [x for x in runner.hooks if not isinstance(x, LoggerHook)]
    runner.model.eval()  # by which a model knows that layers of training alone may be absent
    load_weights(runner.model, checkpoint)
    return runner


def _build_runner(
    cfg: Config, launcher: str, notices: list[str], split: str, checkpoint: str | None
) -> Runner:
    cfg.launcher = launcher
    notices = notices + fit_to_device(cfg, launcher)
    try:
        with memory_explained(cfg, split):
            runner = SafeRunner.from_cfg(cfg)
    except Exception as error:  # what builds parts raises anything
        if (explained := explain(error)) is None:
            raise
        raise explained from error
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    check_channels(model, cfg.model, cfg.get('default_scope'))
    if split == 'train' and (advice := advise_batch_size(cfg, runner.world_size)):
        notices.append(advice)
    for notice in notices:
        runner.logger.warning(notice)
    write_notes(runner, split, notices, checkpoint)
    # Ops and layers know no mm package: they say by Python's logging which backend and path run.
    log = logging.getLogger('mmbiformer')
    log.setLevel(logging.INFO)
    log.handlers, log.propagate = list(runner.logger.handlers), False
    compile_backbone(runner)
    return runner


def checkpoint_folder(cfg: Config) -> str:
    """Where the run's checkpoints are: in its work dir, if the hook has no folder of its own."""
    out_dir = (cfg.get('default_hooks', {}).get('checkpoint') or {}).get('out_dir')
    name = os.path.basename(cfg.work_dir.rstrip(os.sep))
    return os.path.join(out_dir, name) if out_dir else cfg.work_dir


def _set_out(cfg: Config, out: str) -> None:
    evaluators = list_evaluators(cfg, 'test')
    if cfg.get('default_scope') == 'mmseg':
        for evaluator in evaluators:
            # Without keep_results mmseg's Cityscapes metric deletes what it wrote.
            evaluator.update(output_dir=out, keep_results=True)
    elif not out.endswith(('.pkl', '.pickle')):
        raise UserError(f"--out '{out}': predictions go to a pickle file, name it *.pkl")
    else:
        kind = 'DumpResults' if cfg.get('default_scope') == 'mmpretrain' else 'DumpDetResults'
        cfg.test_evaluator = [*evaluators, dict(type=kind, out_file_path=out)]


def _set_show_dir(cfg: Config, show_dir: str) -> None:
    hook = cfg.get('default_hooks', {}).get('visualization')
    if hook is None:
        raise UserError('--show-dir needs default_hooks.visualization in the config: add it')
    show_dir = os.path.abspath(show_dir)
    # Visualizers are global by name: one of an earlier run would keep its own folder, or be the
    # current one, which hooks take.
    cfg.visualizer.name = f'visualizer of {show_dir}'
    if cfg.get('default_scope') == 'mmpretrain':
        hook.update(enable=True, interval=1, out_dir=show_dir)
        return
    hook.draw = True
    if cfg.get('default_scope') == 'mmseg':
        hook.interval = 1
        cfg.visualizer.save_dir = show_dir
    else:
        hook.test_out_dir = show_dir


def _set_tta(cfg: Config) -> None:
    if 'tta_model' not in cfg or 'tta_pipeline' not in cfg:
        raise UserError('--tta needs tta_model and tta_pipeline in the config: leave --tta out')
    for dataset in iter_datasets(cfg, 'test'):
        dataset.pipeline = cfg.tta_pipeline
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)
