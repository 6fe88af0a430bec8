"""Steps as compiled programs, and running them over batches."""
