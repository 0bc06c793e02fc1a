"""What a training or a test did, on one page: made of the files in its work folder."""

from .records import RunRecord, read_run
from .writing import report_at_end, write_run_report

__all__ = ['RunRecord', 'read_run', 'report_at_end', 'write_run_report']
