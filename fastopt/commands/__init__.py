"""What ``python -m fastopt`` does."""
