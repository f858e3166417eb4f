"""Stage `evaluate`: score a trained model on the test split."""

import argparse
from pathlib import Path

import pyarrow.parquet as pq

from mitfrnet.data.masked_text import FrozenText
from mitfrnet.data.tensors import read_tensors
from mitfrnet.evaluation.evaluate import evaluate
from mitfrnet.evaluation.params import EvaluateParams
from mitfrnet.files import replacing, write_json
from mitfrnet.missing import read_masks
from mitfrnet.params import load_params
from mitfrnet.trained.model import TrainedModel
from pipeline import run_stage


def main(argv: list[str] | None = None) -> None:
    """Run the stage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--tensors", type=Path, required=True)
    parser.add_argument("--masks", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--scores", type=Path, required=True)
    parser.add_argument("--predictions", type=Path, required=True)
    args = parser.parse_args(argv)

    params = load_params(EvaluateParams, section="evaluate")
    trained = TrainedModel.load(args.model)
    splits = read_tensors(args.tensors, ["train", "test"])
    masks = read_masks(args.masks, {name: split.steps for name, split in splits.items()})
    text = FrozenText(trained.config["features"]["text"]["identity"], args.work / "text")
    scores, predictions = evaluate(trained, splits, masks, params, text)
    with replacing(args.predictions) as temporary:
        pq.write_table(predictions, temporary, compression="zstd")
    write_json(scores, args.scores)


if __name__ == "__main__":
    run_stage(main)
