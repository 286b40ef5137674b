"""Measurements that back what the documentation claims; not part of the wheel."""
