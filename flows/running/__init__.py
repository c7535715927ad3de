"""What makes a flow a recorded run: checked parameters, seed, page, manifest."""
