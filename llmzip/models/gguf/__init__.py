"""GGUF files, as llama.cpp and Ollama use them, read as the checkpoints that they were made from; knows no engine."""
