"""What codecs, stores and backends must do, as tests that their authors run."""
