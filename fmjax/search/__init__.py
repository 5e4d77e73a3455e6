"""What a sweep is made of: ranges of config fields, and the study that tries them."""
