"""Training of LoRA weights on a folder of images with captions, measured like a run."""
