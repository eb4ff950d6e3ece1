"""The compute-node side: data, model, training loop; never imports submitit or jobs."""
