"""The small YOLOX with routed attention trains, is evaluated and takes plain checkpoints."""

import math
import re

from toolbox import metrics_of, run_tool, save_untrained
from zoo import CONFIGS

from mmbiformer.datasets.shapes import make_shapes

OPTIONS = [
    'train_cfg.max_epochs=1',
    'default_hooks.logger.interval=1',
    'model.test_cfg.score_thr=0',
    'val_dataloader.batch_size=2',
]


def test_trains_and_evaluates_on_the_embedded_shapes(tmp_path, capfd) -> None:
    data_root = make_shapes(tmp_path / 'shapes', num_train=16, num_val=2, octaves=True)
    config = CONFIGS['yolox_bra-p3-p4-p5_shapes']
    plain = tmp_path / 'plain.pth'
    save_untrained(CONFIGS['yolox_shapes'], plain)
    work_dir = tmp_path / 'run'
    common = ['--data-root', data_root, '--work-dir', work_dir, '--cfg-options', *OPTIONS]
    run_tool('train', config, *common, f'load_from={plain}')
    (log,) = work_dir.glob('*/*.log')
    losses = re.findall(r' loss: (\S+)', log.read_text())
    assert len(losses) == 2 and all(math.isfinite(float(loss)) for loss in losses)
    # Of the plain detector everything fits, and what is missing are the attentions.
    printed = ''.join(capfd.readouterr())
    assert 'unexpected key' not in printed
    missing = re.search(r'missing keys in source state_dict: (.*)', printed)[1]
    assert all('neck.attentions.' in name for name in missing.split(', '))
    run_tool('test', config, (work_dir / 'last_checkpoint').read_text(), *common)
    assert -1 <= metrics_of(work_dir)['coco/bbox_mAP'] <= 1
