"""Why? Influence of training images, attribution, the map."""
