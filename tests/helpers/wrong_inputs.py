"""Wrong inputs to tools/train.py and tools/test.py, and what their one line must speak of.

python tests/helpers/wrong_inputs.py [--count 20]

Each runs as a user runs it, but for the start of Python, which takes seconds. It passes if the
tool ends with exit code 2, and with one line beginning 'error:' that has the words of its row.
"""

import argparse
import contextlib
import io
import re
import sys
import tempfile
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from toolbox import CONFIGS, IN_PROCESS, run_tool, save_untrained

from mmbiformer.datasets.shapes import make_shapes

DET = CONFIGS / 'retinanet_biformer_quickstart_shapes.py'
SEG = CONFIGS / 'fpn_biformer_quickstart_shapes.py'
PLUGIN = CONFIGS.parent / 'plugin/yolox_bra-p3_shapes.py'
SWIN = CONFIGS.parent / 'ablation/retinanet_shifted-window_shapes.py'
BACKBONE, NECK, HEAD = 'model.backbone', 'model.neck', 'model.bbox_head'
ARCH = f'{BACKBONE}.arch'
LOADER, DATA = 'train_dataloader', 'train_dataloader.dataset'


class Row(NamedTuple):
    """An input that must be refused.

    Attributes:
        option (str): Of ``--cfg-options``; or arguments of the tool, where it begins with ``--``.
        says (tuple[str]): What the line must have.
        config (Path): The config.
        tool (str): 'train' or 'test'.
    """

    option: str
    says: tuple[str, ...]
    config: Path = DET
    tool: str = 'train'


ROWS = (
    # Backbone: keys.
    Row(f'{BACKBONE}.drop_path=0.1', (f'{BACKBONE}.drop_path=0.1', "'drop_path_rate'")),
    Row(f'{BACKBONE}.partition_facto=5', ('partition_facto=5', "'partition_factor'")),
    Row(f'{BACKBONE}.num_heads=3', (f'{BACKBONE}.num_heads=3', 'BiFormer takes no')),
    Row(f'{BACKBONE}.topks=[1,4,16,-1]', (f'{BACKBONE}.topks', 'BiFormer takes no')),
    Row('model.bakcbone.arch=s', ('model.bakcbone', "'backbone'")),
    # Backbone: values.
    Row(f'{ARCH}=x', (BACKBONE, "arch='x' is unknown", 'tiny, small, base')),
    Row(f'{BACKBONE}.partition_factor=0', (BACKBONE, 'partition_factor=0')),
    Row(f'{BACKBONE}.partition_factor=two', (BACKBONE, "partition_factor='two'")),
    Row(f'{ARCH}.topks=[1,4,16]', (BACKBONE, 'topks')),
    Row(f'{ARCH}.topks=[1,4,16,999]', (BACKBONE, 'topks')),
    Row(f'{ARCH}.depths=[2,2,2]', (BACKBONE, 'depths')),
    Row(f'{ARCH}.embed_dims=[33,64,128,256]', (BACKBONE, 'embed_dims')),
    Row(f'{ARCH}.embed_dim=[32,64,128,256]', ('embed_dim', "'embed_dims'")),
    Row(f'{BACKBONE}.drop_path_rate=2', (BACKBONE, 'drop_path_rate=2')),
    Row(f'{BACKBONE}.out_indices=[3,1]', (BACKBONE, 'out_indices=(3, 1)')),
    Row(f'{BACKBONE}.frozen_stages=9', (BACKBONE, 'frozen_stages=9')),
    Row(f'{BACKBONE}.attention_backend=tritn', (BACKBONE, "attention_backend='tritn'", 'triton')),
    Row(f'{BACKBONE}.attention_backend=magic', (BACKBONE, "attention_backend='magic'")),
    Row(f'{BACKBONE}.padding=zeros', (BACKBONE, "padding='zeros'")),
    Row(f'{BACKBONE}.output_norm=none', (BACKBONE, "output_norm='none'")),
    Row(f'{BACKBONE}.init_cfg=weights.pth', (BACKBONE, 'init_cfg')),
    Row(f'{BACKBONE}.init_cfg.type=Pretraned', (f'{BACKBONE}.init_cfg.type', 'Pretrained')),
    Row(f'{BACKBONE}.attention=shifted', (BACKBONE, "attention='shifted'"), SWIN),
    Row(f'{BACKBONE}.type=mmbiformer.BiFromer', ('mmbiformer.BiFromer', 'mmbiformer.BiFormer')),
    Row(f'{BACKBONE}.type=Nothing', (f"{BACKBONE}.type='Nothing'", 'known')),
    # Neck, heads, losses.
    Row(f'{NECK}.in_channels=[64,128]', (NECK, 'in_channels=[64, 128]')),
    Row(f'{NECK}.in_channels=[64,128,999]', (NECK, 'BiFormer', '[64, 128, 256]')),
    Row(f'{NECK}.in_channel=[64,128,256]', (f'{NECK}.in_channel', "'in_channels'")),
    Row(f'{NECK}.out_channels=64', (f'{HEAD}.in_channels=128', 'FPN')),
    Row(f'{NECK}.num_outs=1', (NECK, 'num_outs')),
    Row(f'{NECK}.norm_cfg.type=GroupNorm2', (f'{NECK}.norm_cfg.type', 'known')),
    Row(f'{NECK}.norm_cfg.num_group=3', ('num_group', "'num_groups'")),
    Row(f'{NECK}.norm_cfg.num_groups=7', (NECK, 'num_groups')),
    Row(f'{HEAD}.num_class=6', (f'{HEAD}.num_class', "'num_classes'")),
    Row(f'{HEAD}.in_channels=64', (f'{HEAD}.in_channels=64', '128')),
    Row(f'{HEAD}.loss_cls.type=FocalLos', (f'{HEAD}.loss_cls.type', 'FocalLoss')),
    Row(f'{HEAD}.loss_cls.gama=2', ('gama', "'gamma'")),
    Row(f'{HEAD}.anchor_generator.ratio=[1]', ('ratio', "'ratios'")),
    Row('model.train_cfg.assigner.pos_iou_th=0.5', ('pos_iou_th', "'pos_iou_thr'")),
    Row('model.test_cfg.score_th=0.5', ('model.test_cfg.score_th', "'score_thr'")),
    Row('model.test_cfg.nms.iou_thresh=0.5', ('model.test_cfg.nms.iou_thresh', "'iou_threshold'")),
    Row('model.test_cfg.nms.type=nsm', ('model.test_cfg.nms.type', 'nms')),
    Row('model.data_preprocessor.means=[1,2,3]', ('data_preprocessor.means', "'mean'")),
    Row('model.data_preprocessor.pad_divisor=32', ('pad_divisor', "'pad_size_divisor'")),
    Row('model.decode_head.in_channels=[1,2,3,4]', ('model.decode_head', 'FPN'), SEG),
    Row('model.decode_head.in_index=[0,1,2,7]', ('model.decode_head',), SEG),
    Row('model.decode_head.loss_decode.use_sigmod=True', ("'use_sigmoid'",), SEG),
    Row('model.test_cfg.mode=hole', ('model.test_cfg.mode', "'whole'"), SEG),
    Row(f'{NECK}.attention.num_heads=7', (NECK, 'num_heads=7'), PLUGIN),
    Row(f'{NECK}.attention.num_head=8', (f'{NECK}.attention.num_head', "'num_heads'"), PLUGIN),
    Row(f'{NECK}.attention.lce_kernel=4', (NECK, 'lce_kernel=4'), PLUGIN),
    Row(f'{NECK}.levels=[5]', (NECK, 'levels=(5,)'), PLUGIN),
    Row(f'{NECK}.neck.in_channels=[64,128,999]', (f'{NECK}.neck.in_channels',), PLUGIN),
    # Optimizer, schedule, loops.
    Row('optim_wraper.optimizer.lr=1', ('optim_wraper', "'optim_wrapper'")),
    Row('optim_wrapper.optimzer.lr=1', ('optimzer', "'optimizer'")),
    Row('optim_wrapper.optimizer.type=AdmW', ('optim_wrapper.optimizer.type', 'AdamW')),
    Row('optim_wrapper.optimizer.weight_deacy=0', ("'weight_decay'",)),
    Row('optim_wrapper.optimizer.lr=-1', ('optim_wrapper.optimizer', 'learning rate: -1')),
    Row('optim_wrapper.clip_grad.max_nrom=1', ("'max_norm'",)),
    Row('optim_wrapper.paramwise_cfg.norm_decay_mul=0', ("'norm_decay_mult'",)),
    Row('optim_wrapper.constructor=LayerDecay', ('optim_wrapper.constructor',)),
    Row('param_scheduler.1.type=CosineAnealingLR', ('CosineAnnealingLR',)),
    Row('param_scheduler.1.T_ma=3', ('param_scheduler.1.T_ma', "'T_max'")),
    Row('param_scheduler.9.end=3', ('--cfg-options', 'param_scheduler')),
    Row('train_cfg.max_epoch=3', ('train_cfg.max_epoch', "'max_epochs'")),
    Row('train_cfg.type=EpochLoop', ('train_cfg.type', 'EpochBasedTrainLoop')),
    Row('auto_scale_lr.base_batchsize=3', ("'base_batch_size'",)),
    Row('randomness.sed=3', ('randomness.sed', "'seed'")),
    # Hooks, evaluators, visualizer, environment.
    Row('default_hooks.checkpoint.intervall=1', ("'interval'",)),
    Row('default_hooks.chekpoint.interval=1', ('chekpoint', "'checkpoint'")),
    Row('default_hooks.logger.type=LogerHook', ('LoggerHook',)),
    Row('default_hooks.checkpoint.rule=greatr', ("'greater'",)),
    Row('val_evaluator.metric=bbx', ('val_evaluator.metric', "'bbox'")),
    Row('val_evaluator.type=CocoMetrics', ('val_evaluator.type', 'CocoMetric')),
    Row('val_evaluator.ann_fil=x', ("'ann_file'",)),
    Row('val_evaluator.iou_metrics=[mIuU]', ("'mIoU'",), SEG),
    Row('visualizer.type=DetVisualizer', ('visualizer.type', 'DetLocalVisualizer')),
    Row('env_cfg.cudnn_benchmrk=True', ("'cudnn_benchmark'",)),
    Row('log_level=INOF', ('log_level', "'INFO'")),
    Row('default_scope=mmdt', ('default_scope', "'mmdet'")),
    # Data.
    Row(f'{LOADER}.sampler.type=DefaultSampeler', ('DefaultSampler',)),
    Row(f'{LOADER}.sampler.shufle=True', ("'shuffle'",)),
    Row(f'{LOADER}.batchsize=2', (f'{LOADER}.batchsize', "'batch_size'")),
    Row(f'{LOADER}.batch_size=0', ('batch_size',)),
    Row(f'{DATA}.type=CocoDatset', (f'{DATA}.type', 'CocoDataset')),
    Row(f'{DATA}.annfile=x', ("'ann_file'",)),
    Row(f'{DATA}.data_prefix.im=x', ("'img'",)),
    Row(f'{DATA}.filter_cfg.min_siz=3', ("'min_size'",)),
    Row(f'{DATA}.pipeline.0.type=LoadImage', (f'{DATA}.pipeline.0.type', 'LoadImageFromFile')),
    Row(f'{DATA}.pipeline.2.pro=1', (f'{DATA}.pipeline.2.pro', "'prob'")),
    Row(f'{DATA}.pipeline.2.direction=horizontl', ("'horizontal'",)),
    Row(f'{DATA}.pipeline.2.prob=7', (f'{DATA}.pipeline.2', '7')),
    # The command line.
    Row('foo.bar=1', ("no 'foo'",)),
    Row('lr', ("'lr'", 'key=value')),
    Row('model.backbone.arch=[1,(2]', ('bracket',)),
    Row('--pretrained cut.pth', ('cut.pth',)),
    Row('--pretrained empty.pth', ('empty.pth',)),
    Row('--pretrained text.pth', ('text.pth',)),
    Row('--pretrained missing.pth', ("'missing.pth' not found",)),
    Row(f'--cfg-options {BACKBONE}.init_cfg.checkpoint=cut.pth '
        f'{BACKBONE}.init_cfg.type=Pretrained', ('cut.pth',)),
    Row('load_from=cut.pth', ('cut.pth',)),
    Row('--resume cut.pth', ('cut.pth',)),
    Row('--resume', ('nothing to resume',)),
    Row('--amp', ('--amp needs an accelerator',)),
    Row('--launcher slurm', ('--launcher slurm',)),
    Row('cut.pth', ('cut.pth',), tool='test'),
    Row('missing.pth', ("'missing.pth' not found",), tool='test'),
    Row('other.pth', ('another architecture', 'and 120 more'), tool='test'),
    Row('whole.pth --tta', ('--tta needs',), tool='test'),
    Row('whole.pth --out results.json', ('name it *.pkl',), tool='test'),
    Row(f'whole.pth --cfg-options {HEAD}.num_classs=6', ("'num_classes'",), tool='test'),
    Row('whole.pth --cfg-options test_evaluator.metric=bbbox', ("'bbox'",), tool='test'),
    Row('whole.pth --cfg-options test_cfg.typ=TestLoop', ('test_cfg.typ',), tool='test'),
)  # fmt: skip


class Inputs:
    """Small data and checkpoint files, in a folder whose name has spaces."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / 'a  b'  # messages keep both spaces
        self.folder.mkdir()
        self.count = 0
        self.shapes = make_shapes(self.folder / 'shapes', num_train=2, num_val=2)
        save_untrained(DET, self.folder / 'whole.pth')
        whole = (self.folder / 'whole.pth').read_bytes()
        (self.folder / 'cut.pth').write_bytes(whole[: len(whole) // 2])
        (self.folder / 'empty.pth').touch()
        (self.folder / 'text.pth').write_text('no checkpoint')
        torch.save({'state_dict': {'conv.weight': torch.zeros(1)}}, self.folder / 'other.pth')

    def arguments(self, row: Row) -> list[str]:
        """What the tool is called with."""
        words = row.option.split(' ')
        if row.tool == 'train' and not words[0].startswith('--'):
            words = ['--cfg-options', row.option]
        if '--cfg-options' not in words:
            words.append('--cfg-options')
        words = [self._placed(x) for x in words]
        known = [
            '--data-root',
            str(self.shapes),
            '--work-dir',
            str(self.folder / f'work {self.count}'),
        ]
        steps = 'train_cfg.max_iters=1' if row.config == SEG else 'train_cfg.max_epochs=1'
        return [str(row.config), *known, *words, *IN_PROCESS, steps]

    def _placed(self, word: str) -> str:
        key, equals, path = word.rpartition('=')
        return f'{key}{equals}{self.folder / path}' if path.endswith('.pth') else word

    def run(self, row: Row) -> str | None:
        """Run a tool on a row; what is wrong with how it ends, or None."""
        err = io.StringIO()
        self.count += 1
        try:
            with contextlib.redirect_stderr(err), contextlib.redirect_stdout(io.StringIO()):
                run_tool(row.tool, *self.arguments(row))
        except SystemExit as stop:
            lines = [x for x in err.getvalue().splitlines() if x.startswith('error: ')]
            said = err.getvalue().strip()
            if stop.code != 2 or len(lines) != 1:
                return f'exit code {stop.code}: {said[-300:]}'
            missing = [x for x in row.says if x not in lines[0].replace(f'{self.folder}/', '')]
            if missing:
                return f'{lines[0]} (lacks {missing})'
            if re.search('a +b/', lines[0]) and str(self.folder) not in lines[0]:
                return f'{lines[0]} (the path is not whole)'
            self.line = lines[0]
            return None
        except Exception as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            return f'{error!r} in {frame.filename}:{frame.lineno}'
        return 'it was accepted'


def run_all(rows: tuple[Row, ...], folder: Path) -> Iterator[tuple[Row, str | None, str]]:
    """Run rows; each with what is wrong with how it ended, and its line."""
    inputs = Inputs(folder)
    for row in rows:
        inputs.line = ''
        yield row, inputs.run(row), inputs.line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--count', type=int, help='the first so many instead of all')
    args = parser.parse_args()
    warnings.simplefilter('ignore')
    refused = 0
    with tempfile.TemporaryDirectory() as folder:
        for row, wrong, line in run_all(ROWS[: args.count], Path(folder)):
            refused += wrong is None
            print(f'{"right" if wrong is None else "WRONG"}: {row.tool} {row.option}')
            print(f'    {wrong or line}', flush=True)
    print(f'{refused} of {len(ROWS[: args.count])} end in one line and exit code 2')
    sys.exit(refused != len(ROWS[: args.count]))


if __name__ == '__main__':
    main()
