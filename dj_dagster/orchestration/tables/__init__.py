"""Tables as Dagster shows them: nodes, grains, partitions."""
