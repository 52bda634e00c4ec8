"""What a model says about a text: scores, entropy, surprisal, distance, and estimates of size and time."""
