"""One file a format: a path in, rows or rejections with their line out."""
