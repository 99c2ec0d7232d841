"""The objects floor: blobs, codecs, and the stores that hold what is too large for a row."""
