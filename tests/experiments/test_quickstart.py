"""The table that quickstart ends with."""

from mmbiformer.experiments.quickstart import DETECTION_COLUMNS, format_metrics


def test_table_shows_metrics_under_their_names() -> None:
    metrics = {'coco/bbox_mAP': 0.61, 'coco/bbox_mAP_l': 0.7}
    head, row = format_metrics(DETECTION_COLUMNS, metrics).splitlines()
    assert head.split() == ['AP', 'AP50', 'AP75', 'APs', 'APm', 'APl']
    assert row.split() == ['0.61', 'n/a', 'n/a', 'n/a', 'n/a', '0.7']


def test_empty_size_bin_has_no_value() -> None:
    row = format_metrics({'APs': 'coco/bbox_mAP_s'}, {'coco/bbox_mAP_s': -1.0}).splitlines()[1]
    assert row.split() == ['n/a']
