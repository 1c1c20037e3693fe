"""What each family's xfuser pipeline has to be told, one small file a family."""
