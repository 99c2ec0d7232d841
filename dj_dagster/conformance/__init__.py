"""The requirements of codecs, stores and backends, as tests that their authors run."""
