"""What several tests of classification start from."""

import numpy as np
import pytest
import torch


@pytest.fixture
def image(tmp_path):
    """An image whose brightness is the label's probability, and its published label map."""
    import cv2

    rng = np.random.default_rng(0)
    chance = cv2.resize(rng.uniform(0.2, 0.8, (6, 8)), (160, 120), interpolation=cv2.INTER_LINEAR)
    (tmp_path / 'images/cat').mkdir(parents=True)
    (tmp_path / 'maps/cat').mkdir(parents=True)
    path = tmp_path / 'images/cat/1.png'
    cv2.imwrite(str(path), np.repeat((255 * chance)[..., None], 3, 2).round().astype(np.uint8))
    small = cv2.resize(chance, (16, 12), interpolation=cv2.INTER_AREA)
    # The classes that are not in the file have the logit 0: hardly a chance beside 10.
    logits = np.full((5, 12, 16), -5.0)
    logits[:2] = 10 + np.log([small, 1 - small])
    classes = np.empty_like(logits)
    classes[:] = np.array([2, 0, 1, 3, 4])[:, None, None]
    torch.save(torch.from_numpy(np.stack([logits, classes])).half(), tmp_path / 'maps/cat/1.pt')
    return dict(img_path=str(path), gt_label=2)
