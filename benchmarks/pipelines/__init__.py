"""Programs that `public_pipelines` runs with the packages of others, on either DataJoint."""
