"""Config text in checkpoints: nothing of it is left where mmengine would run it."""

import pytest
from mmengine.config import Config

from mmbiformer.checkpoints.config_text import disarm


@pytest.mark.parametrize('ids', ['range(0, 8)', '[0, 1]', '[]'])
def test_the_number_of_gpus_stays(ids):
    checkpoint = dict(meta=dict(config=f'x = open("y")\ngpu_ids = {ids}\nz = 1\n'))
    disarm(checkpoint, 'x.pth')
    assert checkpoint == dict(meta=dict(config=f'gpu_ids = {ids}'))
    assert len(Config.fromstring(checkpoint['meta']['config'], '.py').gpu_ids) == len(eval(ids))


@pytest.mark.parametrize('ids', ['range(0, open("y"))', '[x]', '[0] + f()', '[0]; f()', '[(0)]'])
def test_ids_that_are_none_go(ids):
    checkpoint = dict(meta=dict(config=f'gpu_ids = {ids}'))
    disarm(checkpoint, 'x.pth')
    assert checkpoint == dict(meta={})


def test_an_inferencer_without_a_config_names_the_remedy():
    """Whatever the file is called: its name gets into the text that mmengine runs."""
    checkpoint = dict(
        meta=dict(cfg='x = 1'), message_hub=dict(runtime_info=dict(cfg='x = 1', epoch=2))
    )
    disarm(checkpoint, "a'){{$X:\\n}}/b.pth")
    assert checkpoint['message_hub'] == dict(runtime_info=dict(epoch=2))
    message = r'^the config in a\?\?\?\?\?X\?\?n\?\?/b\.pth is not run: name a config$'
    with pytest.raises(ValueError, match=message):
        Config.fromstring(checkpoint['meta']['cfg'], '.py')


@pytest.mark.parametrize('content', [[], dict(meta=1), dict(meta=dict(config=1)), dict(x=1)])
def test_content_without_text_passes(content):
    disarm(content, 'x.pth')


def test_a_message_hub_that_was_left_out_goes():
    checkpoint = dict(message_hub=object(), state_dict={})
    disarm(checkpoint, 'x.pth')
    assert checkpoint == dict(state_dict={})
