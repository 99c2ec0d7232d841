"""Tables as Dagster knows them: nodes, grains, partitions."""
