"""The user's data: arrays on disk, or what a script yields, as batches for a model's inputs."""

from bnfold.data.dataset import Dataset, open_data
from bnfold.data.sources import DataError, Feed

__all__ = ["DataError", "Dataset", "Feed", "open_data"]
