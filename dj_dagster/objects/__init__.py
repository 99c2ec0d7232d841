"""The objects floor: blobs, codecs, and the stores of values that are too large for a row."""
