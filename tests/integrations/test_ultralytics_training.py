"""Training with Ultralytics, by its command line and from Python, and what it leaves behind."""

import json
import re
from pathlib import Path

import pytest
from ultralytics_runs import CONFIGS, TRAINING, YOLO, needs_index, run_python, write_squares

from mmbiformer.integrations import ultralytics as integration

MODULE = 'mmbiformer.integrations.ultralytics'
MODEL = CONFIGS / 'yolov8n_bra-p3.yaml'


@pytest.fixture(scope='module')
def data(tmp_path_factory) -> Path:
    return write_squares(tmp_path_factory.mktemp('squares'), dict(train=8, val=4))


def as_arguments(**options: object) -> list[str]:
    """Options as Ultralytics' command line takes them."""
    return [f'{name}={value}' for name, value in options.items()]


def test_command_line_trains_and_the_checkpoint_needs_no_import_of_ours(tmp_path, data):
    options = dict(model=MODEL, data=data, epochs=1, project=tmp_path, name='run', **TRAINING)
    run_python('-m', MODULE, 'train', *as_arguments(**options), cwd=tmp_path)
    code = """
import json
import sys
from ultralytics import YOLO

assert not any(name.startswith('mmbiformer') for name in sys.modules)
paths, training = map(json.loads, sys.argv[1:])
model = YOLO(paths['best'])
assert type(model.model.model[16]).__module__ == 'mmbiformer.integrations.ultralytics'
metrics = model.val(data=paths['data'], imgsz=64, plots=False, project=paths['project'])
assert 0 <= metrics.box.map <= 1
assert len(model.predict(paths['images'], imgsz=64, conf=0.001, save=False)) == 4
model.train(data=paths['data'], epochs=1, project=paths['project'], name='more', **training)
"""
    paths = dict(
        best=str(tmp_path / 'run/weights/best.pt'),
        data=str(data),
        images=str(data.parent / 'images/val'),
        project=str(tmp_path),
    )
    run_python('-c', code, json.dumps(paths), json.dumps(TRAINING), cwd=tmp_path)
    trained = YOLO(tmp_path / 'more/weights/best.pt').model
    assert isinstance(trained.model[16], integration.BiLevelRoutingAttention)


def test_training_changes_the_attention_and_resumes_in_a_fresh_process(tmp_path, data):
    code = """
import json
import sys
from ultralytics import YOLO
import mmbiformer.integrations.ultralytics

def remember(trainer):
    before.update({k: v.clone() for k, v in trainer.model.model[16].state_dict().items()})

def stop(trainer):  # as a machine does that is switched off
    for model in (trainer.model, trainer.ema.ema):
        after = model.model[16].state_dict()
        assert len(before) == len(after) == 6
        assert all((after[name] != value).any() for name, value in before.items())
    sys.exit(7)

before, (path, options) = {}, json.loads(sys.argv[1])
model = YOLO(path)
model.add_callback('on_train_start', remember)
model.add_callback('on_model_save', stop)
model.train(**options)
"""
    options = dict(data=str(data), epochs=2, project=str(tmp_path), name='run', **TRAINING)
    arguments = json.dumps((str(MODEL), options))
    stopped = run_python('-c', code, arguments, cwd=tmp_path, check=False)
    assert stopped.returncode == 7, stopped.stderr[-4000:]
    code = "from ultralytics import YOLO; YOLO('run/weights/last.pt').train(resume=True)"
    run_python('-c', code, cwd=tmp_path)
    lines = (tmp_path / 'run/results.csv').read_text().splitlines()
    assert [line.split(',')[0].strip() for line in lines] == ['epoch', '1', '2']


@needs_index
def test_cloformer_trains_and_its_checkpoint_needs_no_import_of_ours(tmp_path, data):
    model = CONFIGS / 'yolov8n_cloformer.yaml'
    options = dict(model=model, data=data, epochs=1, project=tmp_path, name='run', **TRAINING)
    run_python('-m', MODULE, 'train', *as_arguments(**options), cwd=tmp_path)
    code = """
import sys
from ultralytics import YOLO

metrics = YOLO('run/weights/best.pt').val(data=sys.argv[1], imgsz=64, plots=False, project='.')
assert 0 <= metrics.box.map <= 1
"""
    run_python('-c', code, data, cwd=tmp_path)


def test_wrong_arguments_are_errors_of_ultralytics(tmp_path):
    done = run_python('-m', MODULE, 'train', 'epohcs=1', cwd=tmp_path, check=False)
    assert done.returncode == 1
    assert re.search('SyntaxError: .*epohcs.*is not a valid YOLO argument', done.stderr)


def test_wrong_options_in_a_yaml_are_one_line(tmp_path):
    text = MODEL.with_name('yolov8_bra-p3.yaml').read_text()
    path = tmp_path / 'yolov8n_own.yaml'
    path.write_text(text.replace('Attention, []', 'Attention, [64]'))
    command = ('-m', MODULE, 'train', f'model={path}', 'data=x.yaml')
    done = run_python(*command, cwd=tmp_path, check=False)
    assert done.returncode == 2
    (line,) = [x for x in done.stderr.splitlines() if 'error' in x]
    assert line.startswith('error: BiLevelRoutingAttention in the model YAML: argument 64 has no')


def start_of_several_gpus(trainer_class: type, data: Path, folder: Path) -> str:
    """The file that Ultralytics writes for its fresh processes, with training left out."""
    from ultralytics.utils.dist import ddp_cleanup, generate_ddp_file

    options = dict(model=str(MODEL), data=str(data), epochs=1, project=str(folder), **TRAINING)
    trainer = trainer_class(overrides=options)
    file = generate_ddp_file(trainer)
    text = Path(file).read_text()
    state = Path(file).with_suffix('.pt')  # beside it from 8.4 on
    if state.exists():
        state.rename(folder / 'state.pt')
        text = text.replace(str(state), str(folder / 'state.pt'))
    ddp_cleanup(trainer, file)
    text, count = re.subn(
        r'(results = )?trainer\.train\(\)',
        "trainer.setup_model(); print('built', type(trainer.model.model[16]))",
        text,
    )
    assert count == 1
    return text


def test_fresh_processes_of_several_gpus_know_the_attention(tmp_path, data):
    # Own trainers have taken the place of Ultralytics' where its tasks look them up.
    trainer_class = YOLO(MODEL).task_map['detect']['trainer']
    assert trainer_class is integration.DetectionTrainer
    script = tmp_path / 'start.py'
    script.write_text(start_of_several_gpus(trainer_class, data, tmp_path))
    done = run_python(script, cwd=tmp_path)
    assert f"built <class '{MODULE}.BiLevelRoutingAttention'>" in done.stdout

    # Without them they do not, so that this test can fail.
    script.write_text(start_of_several_gpus(trainer_class.__base__, data, tmp_path))
    done = run_python(script, cwd=tmp_path, check=False)
    assert done.returncode == 1
    assert "KeyError: 'BiLevelRoutingAttention'" in done.stderr


def test_every_task_has_a_trainer_of_the_integration():
    from ultralytics.models.rtdetr.model import RTDETRTrainer

    tasks = YOLO(MODEL).task_map
    assert {'detect', 'segment', 'classify', 'pose', 'obb'} <= set(tasks)
    for classes in tasks.values():
        trainer = classes['trainer']
        assert trainer.__module__ == MODULE
        assert getattr(integration, trainer.__name__) is trainer
        assert trainer.__base__.__module__.startswith('ultralytics.models.yolo.')
    # What RTDETR's own map of tasks takes.
    assert RTDETRTrainer.__module__ == MODULE
    assert integration.RTDETRTrainer is RTDETRTrainer
