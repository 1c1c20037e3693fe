"""Everything that puts weights on a device."""
