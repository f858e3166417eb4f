"""Stage `evaluate`: score a trained model on the test split."""

import argparse
from pathlib import Path

import pyarrow.parquet as pq

from mitfrnet.data.tensors import read_tensors
from mitfrnet.data.utterances import FrozenText
from mitfrnet.evaluation import EvaluateParams, evaluate
from mitfrnet.files import replacing, write_json
from mitfrnet.missing import read_masks
from mitfrnet.model_card import fingerprint, model_card
from mitfrnet.params import load_params
from mitfrnet.trained import TrainedModel
from pipeline import run_stage


def main(argv: list[str] | None = None) -> None:
    """Run the stage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", required=True, help="what the model card calls it")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--tensors", type=Path, required=True)
    parser.add_argument("--masks", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--scores", type=Path, required=True)
    parser.add_argument("--predictions", type=Path, required=True)
    parser.add_argument("--card", type=Path, required=True)
    args = parser.parse_args(argv)

    params = load_params(EvaluateParams, section="evaluate")
    trained = TrainedModel.load(args.model)
    splits = read_tensors(args.tensors, ["train", "test"])
    masks = read_masks(args.masks, {name: split.steps for name, split in splits.items()})
    text = FrozenText(trained.config["features"]["text"]["identity"], args.work / "text")
    scores, predictions = evaluate(trained, splits, masks, params, text)
    with replacing(args.predictions) as temporary:
        pq.write_table(predictions, temporary, compression="zstd")
    card = model_card(
        trained.config,
        fingerprint=fingerprint(trained.config, args.model),
        scores=scores,
        tested_at=(predictions["missing_rate"][0].as_py(), predictions["mask_seed"][0].as_py()),
        corpus=args.corpus,
    )
    with replacing(args.card) as temporary:
        temporary.write_text(card, encoding="utf-8")
    write_json(scores, args.scores)


if __name__ == "__main__":
    run_stage(main)
