"""Images, videos and models to predict with."""

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from toolbox import CONFIGS, save_untrained

DETECTOR = CONFIGS / 'retinanet_biformer_quickstart_shapes.py'
SEGMENTER = CONFIGS / 'fpn_biformer_quickstart_shapes.py'
# Few and small layers, and every object scores enough.
MASKS = f"""
_base_ = '{CONFIGS / 'mask-rcnn_biformer-t_fpn_1x_coco.py'}'
arch = dict(_delete_=True, embed_dims=(32, 32, 32, 32), depths=(1, 1, 1, 1))
model = dict(
    backbone=dict(arch=arch, init_cfg=None, drop_path_rate=0.0),
    neck=dict(in_channels=[32, 32, 32, 32]),
    test_cfg=dict(rpn=dict(nms_pre=20, max_per_img=20), rcnn=dict(score_thr=0.0, max_per_img=5)),
)
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(96, 96), keep_ratio=True),
    dict(type='PackDetInputs'),
]
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
"""


def noise(seed: int = 0, height: int = 96, width: int = 128) -> np.ndarray:
    """An image (H, W, 3) of coarse noise."""
    small = np.random.default_rng(seed).integers(0, 255, (12, 16, 3), np.uint8)
    return cv2.resize(small, (width, height))


def untrained(config: Path, folder: Path) -> Path:
    """A checkpoint of a config."""
    path = folder / f'{config.stem}.pth'
    save_untrained(config, path)
    return path


def write_video(path: Path, num_frames: int) -> Path:
    """Frames of 128 x 96, MJPEG."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'MJPG'), 10, (128, 96))
    for seed in range(num_frames):
        writer.write(noise(seed))
    writer.release()
    return path


def read_video(path: Path) -> tuple[list[np.ndarray], float]:
    """The frames, and how many there are in a second."""
    capture = cv2.VideoCapture(str(path))
    fps, frames = capture.get(cv2.CAP_PROP_FPS), []
    while (read := capture.read())[0]:
        frames.append(read[1])
    return frames, fps


@contextmanager
def network_camera() -> Iterator[str]:
    """The address of a camera that sends JPEGs without end, as those of networks do."""
    jpeg = cv2.imencode('.jpg', noise())[1].tobytes()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header('Content-Type', 'multipart/x-mixed-replace; boundary=frame')
            self.end_headers()
            try:
                while True:
                    head = f'--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}'
                    self.wfile.write(f'{head}\r\n\r\n'.encode() + jpeg + b'\r\n')
            except OSError:
                pass  # who looked has gone

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{server.server_port}/camera.mjpg'
    server.shutdown()
    server.server_close()
