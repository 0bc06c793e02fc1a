"""Metafile and model zoo page: the published numbers, marked as published."""

import re

import yaml
from zoo import (
    CLASSIFIERS,
    CLOFORMER,
    CONFIGS,
    MASK_RCNN,
    NAMES,
    RETINANET,
    ROOT,
    SEMANTIC_FPN,
    TOKEN_LABELLING,
    UPERNET,
    load,
)

# Copied from arXiv 2303.08810.
BOX = ('box AP', 'box AP50', 'box AP75', 'box APs', 'box APm', 'box APl')
MASK = ('mask AP', 'mask AP50', 'mask AP75')
MIOU = ('mIoU', 'mIoU(ms+flip)')
PUBLISHED = {
    RETINANET.format('s'): [(BOX, (45.9, 66.9, 49.4, 30.2, 49.6, 61.7))],
    RETINANET.format('b'): [(BOX, (47.1, 68.5, 50.4, 31.3, 50.8, 62.6))],
    MASK_RCNN.format('s'): [(BOX[:3], (47.8, 69.8, 52.3)), (MASK, (43.2, 66.8, 46.5))],
    MASK_RCNN.format('b'): [(BOX[:3], (48.6, 70.5, 53.8)), (MASK, (43.7, 67.6, 47.1))],
    SEMANTIC_FPN.format('s'): [(MIOU[:1], (48.9,))],
    SEMANTIC_FPN.format('b'): [(MIOU[:1], (49.9,))],
    UPERNET.format('s'): [(MIOU, (49.8, 50.8))],
    UPERNET.format('b'): [(MIOU, (51.0, 51.7))],
}
# ImageNet top-1, copied from arXiv 2303.08810 and 2303.17803.
TOP1 = dict(zip(CLASSIFIERS, (81.4, 83.8, 84.3, 82.7, 77.0, 79.8, 81.6), strict=True))
TOP1[TOKEN_LABELLING] = 84.3
PUBLISHED |= {name: [(('Top 1 Accuracy',), (top1,))] for name, top1 in TOP1.items()}


def metafile_models() -> dict:
    index = yaml.safe_load((ROOT / 'model-index.yml').read_text())
    files = [yaml.safe_load((ROOT / path).read_text()) for path in index['Import']]
    return {model['Name']: model for file in files for model in file['Models']}


PLUGIN = sorted(
    name
    for name, path in CONFIGS.items()
    if path.parent.name == 'plugin' and name.endswith('_coco')
)


def test_metafiles_list_the_published_results_and_no_others():
    models = metafile_models()
    unpublished = [*PLUGIN, *CLOFORMER]
    assert sorted(models) == sorted([*PUBLISHED, *unpublished])
    assert not any({'Results', 'Weights'} & models[name].keys() for name in unpublished)
    for name in PUBLISHED:
        model = models[name]
        expected = [dict(zip(keys, values, strict=True)) for keys, values in PUBLISHED[name]]
        assert [result['Metrics'] for result in model['Results']] == expected


def test_metafile_describes_its_configs():
    for name, model in metafile_models().items():
        assert ROOT / model['Config'] == CONFIGS[name]
        assert 'Weights' not in model
        metadata, cfg = model['Metadata'], load(name)
        if name in PUBLISHED:
            paper = '2303.17803' if 'cloformer' in name else '2303.08810'
            source = f'published by the paper (arXiv {paper}), not measured by this project'
            assert metadata['Results Source'] == source
        assert metadata['Batch Size'] == cfg.auto_scale_lr.base_batch_size
        length = metadata.get('Epochs') or metadata.get('Iterations')
        assert length == cfg.train_cfg.get('max_epochs', cfg.train_cfg.get('max_iters'))


# Copied from arXiv 2303.17803: parameters in M, G multiply-adds at 224, top-1 on ImageNet.
CLOFORMER_CLASSIFIERS = {'XXS': (4.2, 0.6, 77.0), 'XS': (7.2, 1.1, 79.8), 'S': (12.3, 2.0, 81.6)}


def test_cloformer_page_links_each_config_and_has_the_published_numbers():
    page = (ROOT / 'configs/cloformer/README.md').read_text()
    for name in CLOFORMER:
        assert page.count(f'({name}.py)') == 1
    for size, numbers in CLOFORMER_CLASSIFIERS.items():
        (row,) = re.findall(rf'^\| CloFormer-{size} \|(.*)\|$', page, re.M)
        assert tuple(float(cell) for cell in row.split('|')[:3]) == numbers


def test_readme_has_a_row_per_config_with_the_published_numbers():
    rows = (ROOT / 'configs/biformer/README.md').read_text().splitlines()
    for name in NAMES:
        (row,) = [row for row in rows if f'({name}.py)' in row]
        numbers = tuple(float(cell) for cell in re.findall(r'\| (\d+\.\d+) (?=\|)', row))
        assert numbers == tuple(value for _, values in PUBLISHED.get(name, []) for value in values)


def test_classification_page_has_a_row_per_config_with_the_published_numbers():
    rows = (ROOT / 'configs/classification/README.md').read_text().splitlines()
    for name, top1 in TOP1.items():
        (row,) = [row for row in rows if f'({name}.py)' in row]
        numbers = [float(cell) for cell in re.findall(r'\| (\d+\.\d) (?=\|)', row)]
        size = name.split('_')[0].removeprefix('cloformer-').upper()
        if 'cloformer' in name:
            assert tuple(numbers) == CLOFORMER_CLASSIFIERS[size]
        assert (len(numbers), numbers[-1]) == (3, top1)
