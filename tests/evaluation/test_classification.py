"""The table of what is taken for what."""

import torch

from mmbiformer.evaluation.classification import confusion_text


def test_rows_are_classes_and_columns_what_they_were_found_as():
    pairs = [(0, 0), (0, 2), (1, 1), (2, 2), (2, 2), (2, 0)]
    results = [
        dict(gt_label=torch.tensor([label]), pred_label=torch.tensor([found]))
        for label, found in pairs
    ]
    lines = confusion_text(results, ('ring', 'star', 'cross')).splitlines()
    cells = [[cell.strip() for cell in line.split('|')[1:-1]] for line in lines if '|' in line]
    assert cells == [
        ['found as', 'ring', 'star', 'cross'],
        ['ring', '1', '', '1'],
        ['star', '', '1', ''],
        ['cross', '1', '', '2'],
    ]
