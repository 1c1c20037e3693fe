"""The engine of models that predict an image scale by scale: VAR and Infinity."""
