"""The model floor: plain data about tables, types and keys. It performs no input or output."""
