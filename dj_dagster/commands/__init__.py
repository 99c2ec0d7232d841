"""Commands of ``dj-dagster``, each over functions that programs can call."""
