"""What a classifier is, and what it left behind: loading, training, one forward pass, the Bank."""
