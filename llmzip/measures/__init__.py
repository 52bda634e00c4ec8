"""What a model says about a text: scores, entropy, surprisal, distance, estimates. Must not know the command line."""
