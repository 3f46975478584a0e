"""What the pipeline's driver costs at sizes that do not fit here, from costs measured at sizes that do."""
