"""Full-size pipelines without weights: what a model costs does not depend on what it has learned."""
