"""Config text in checkpoints: mmengine runs it as Python, so it is taken away."""

import re

# mmengine compares the number of GPUs where a checkpoint is of mmcv 1: the one line that it needs.
_GPU_IDS = re.compile(r'^gpu_ids = (range\(\d{1,4}, \d{1,4}\)|\[[\d, ]*\])$', re.MULTILINE)


def disarm(checkpoint: object, path: str) -> None:
    """Take the text away in place.

    ``meta['config']`` keeps its line of ``gpu_ids``, which resuming looks at. An inferencer that
    was given no config finds an error in ``meta['cfg']`` that names the remedy. The text in the
    message hub goes: a resumed run has its own.
    """
    if not isinstance(checkpoint, dict):
        return
    meta, hub = checkpoint.get('meta'), checkpoint.get('message_hub')
    if isinstance(meta, dict):
        text = meta.pop('config', None)
        if isinstance(text, str) and (line := _GPU_IDS.search(text)):
            meta['config'] = line[0]
        if 'cfg' in meta:
            name = re.sub(r'[^\w./-]', '?', path, flags=re.ASCII)  # it becomes code
            meta['cfg'] = f"raise ValueError('the config in {name} is not run: name a config')"
    if isinstance(hub, dict) and isinstance(hub.get('runtime_info'), dict):
        hub['runtime_info'].pop('cfg', None)
    elif hub is not None and not isinstance(hub, dict):
        del checkpoint['message_hub']  # an object of mmengine's first versions, left out
