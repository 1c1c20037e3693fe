"""Energy of a window: counters, samples, and what they say of each GPU and stage."""
