"""Images with captions: made from a folder, a hub dataset or Parquet files, and read back."""
