"""Prediction on images, folders, videos and cameras."""

from .prediction_run import predict_source
from .predictor import Predictor
from .sources import open_source

__all__ = ['Predictor', 'open_source', 'predict_source']
