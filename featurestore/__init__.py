"""A feature store on the lakehouse."""
