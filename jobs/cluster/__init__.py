"""The same job on a cluster: submitted to a running Ray, or as a manifest for Kubernetes, Slurm or cron."""
