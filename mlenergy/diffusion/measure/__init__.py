"""The instrument: warm-up, windows, energy, memory, stage times -> frozen samples."""
