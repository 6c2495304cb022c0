"""Open Inference Protocol, version 2: requests to rows, scores to answers, the model's metadata.

One input tensor per column, one value per row, null or NaN for a missing value; or one matrix of all inputs, for models that take
only numbers. Specification: kserve/open-inference-protocol, inference_rest; with the binary tensor data extension.
"""

from perennial_serving.answers import Answer
from perennial_serving.oip.binary import LENGTH_HEADER, header_length
from perennial_serving.oip.outputs import OUTPUTS, OipRequest, metadata
from perennial_serving.oip.rest import encode, parse

__all__ = ["LENGTH_HEADER", "OUTPUTS", "Answer", "OipRequest", "encode", "header_length", "metadata", "parse"]
