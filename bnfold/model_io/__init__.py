"""Reading and writing models.

Large tensors stay in their file until they are asked for, and an output exists whole or not at all.
"""

from bnfold.model_io.destination import Output, beside, destination_of, files_of, refuse_data
from bnfold.model_io.error import ModelError
from bnfold.model_io.forms import ModelLike
from bnfold.model_io.holder import Holder
from bnfold.model_io.model import Model, load
from bnfold.model_io.output import check_output, staged
from bnfold.model_io.payload import Payload
from bnfold.model_io.temporary import Temporary, sweep, temporary_folder
from bnfold.model_io.text import check_text, write_text
from bnfold.model_io.write import to_proto, write_stream

__all__ = [
    "Holder",
    "Model",
    "ModelError",
    "ModelLike",
    "Output",
    "Payload",
    "Temporary",
    "beside",
    "check_output",
    "check_text",
    "destination_of",
    "files_of",
    "load",
    "refuse_data",
    "staged",
    "sweep",
    "temporary_folder",
    "to_proto",
    "write_stream",
    "write_text",
]
