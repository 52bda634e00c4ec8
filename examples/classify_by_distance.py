"""Classifies short texts by their nearest neighbour, with llmzip's information distance and with gzip's.

    python examples/classify_by_distance.py [--model NAME] [FILE]

Each line of FILE is a JSON object with the keys topic and text; the default is topics.jsonl next to this program. Each
text is compared with all others and gets the topic of the nearest one.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from llmzip.inference import load
from llmzip.measures.distance import measure_distances
from llmzip.models.choice import model_for_compressing
from llmzip.settings import CompressSettings

MEASURES = {"max": "information distance, max", "mean": "information distance, mean", "gzip": "gzip -9, NCD"}


def nearest_topics(matrix: np.ndarray, topics: list[str]) -> list[str]:
    """Returns the topic of each text's nearest other text; distances of two directions count as their mean."""
    both = (matrix + matrix.T) / 2
    np.fill_diagonal(both, np.inf)
    return [topics[number] for number in both.argmin(axis=1)]


def main() -> None:
    """Prints how many texts each measure classifies correctly, and which ones it does not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", type=Path, default=Path(__file__).with_name("topics.jsonl"))
    parser.add_argument("--model", default="default", help="an embedded model or a folder")
    parser.add_argument("--show", action="store_true", help="list the texts that get another topic")
    arguments = parser.parse_args()

    entries = [json.loads(line) for line in arguments.file.read_text(encoding="utf-8").splitlines()]
    topics = [entry["topic"] for entry in entries]
    texts = [entry["text"].encode() for entry in entries]

    settings = CompressSettings(model=arguments.model)
    model = load.load(model_for_compressing(settings), settings.engine)
    distances = measure_distances(model, texts)

    print(f"{len(texts)} texts, {len(set(topics))} topics, model {model.name}")
    for measure, title in MEASURES.items():
        found = nearest_topics(distances.matrix(measure), topics)
        right = sum(one == two for one, two in zip(found, topics, strict=True))
        print(f"{title:<28}{right:>3} of {len(texts)} right, {100 * right / len(texts):.1f} %")
        if arguments.show:
            for guess, entry in zip(found, entries, strict=True):
                if guess != entry["topic"]:
                    print(f"    {guess} for {entry['topic']}: {entry['text'][:60]}...")


if __name__ == "__main__":
    main()
