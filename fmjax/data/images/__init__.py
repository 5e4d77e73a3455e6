"""Images as arrays: decoding, resizing, and the changes that training makes to them."""
