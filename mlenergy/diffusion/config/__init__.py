"""From what the user asks for to a checked plan. No torch."""
