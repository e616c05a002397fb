"""What production says about a model: signals, segmentation, mining."""
