"""The user's data: arrays on disk, or what a script yields, as batches for a model's inputs."""

from bnfold.data.dataset import Dataset, open_data
from bnfold.data.sources import DataError, Feed, lengths, rows_of

__all__ = ["DataError", "Dataset", "Feed", "lengths", "open_data", "rows_of"]
