"""Checks of data: quick ones before every run, and of every file by tools/check_data.py."""
