"""What stands on top of the multi-modal encoder: decoders and task heads."""
