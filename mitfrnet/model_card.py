"""The README of a model that leaves the pipeline: what it is, its scores, and what it is not.

It is written when a model is saved on its own and not by the train stage: the scores are those of
the evaluate stage, which comes after it and may not write into its folder (an output of DVC
belongs to one stage).
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from mitfrnet.architectures import ARCHITECTURES
from mitfrnet.errors import FeatureError
from mitfrnet.metrics import ClassScale, LabelScale, parse_scale
from mitfrnet.modalities import MODALITIES

_PAPER = (
    "Li et al., *MIT-FRNet: Modality-invariant temporal representation learning-based feature "
    "reconstruction network for missing modalities*, Expert Systems with Applications, 2024, "
    "[doi:10.1016/j.eswa.2024.123655](https://doi.org/10.1016/j.eswa.2024.123655)"
)
# Scores that say nothing by themselves.
_LEFT_OUT = ("n", "constant_prediction")

# The rows of the table of scores: missing rate, seed of the test mask, scores.
Rows = list[tuple[str, str, dict[str, Any]]]


def read_scores(path: Path) -> dict[str, Any]:
    """Return scores as the evaluate stage writes them.

    Raises:
        FeatureError: there are none.
    """
    try:
        scores = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FeatureError(f"{path}: no scores ({error}); run evaluate") from error
    if not isinstance(scores, dict) or not ("n" in scores or "by_rate" in scores):
        raise FeatureError(f"{path}: no scores (expected what the evaluate stage writes)")
    return scores


def model_card(
    config: Mapping[str, Any], *, scores: Mapping[str, Any] | None = None, corpus: str | None = None
) -> str:
    """Return the model card, Markdown behind the metadata that the Hugging Face hub reads.

    Args:
        config: of the model folder.
        scores: from `read_scores`; None: the card says that there are none.
        corpus: the name of the one it was trained on, where known.
    """
    rows = [] if scores is None else _rows(config, scores)
    metadata = _metadata(config, rows, corpus)
    header = yaml.safe_dump(metadata, sort_keys=True, allow_unicode=True)
    return f"---\n{header}---\n\n" + "\n".join(_body(config, rows, corpus)) + "\n"


def _rows(config: Mapping[str, Any], scores: Mapping[str, Any]) -> Rows:
    if "by_rate" not in scores:
        masks = config["training"]["masks"]
        return [(str(masks["rate"]), str(masks["params"]["seed"]), dict(scores))]
    return [
        (rate, seed, found)
        for rate, at_rate in scores["by_rate"].items()
        for seed, found in at_rate["by_mask_seed"].items()
    ]


def _metadata(config: Mapping[str, Any], rows: Rows, corpus: str | None) -> dict[str, Any]:
    name = _name(config)
    metadata: dict[str, Any] = {
        "language": [config["language"]],
        "library_name": "mitfrnet",
        "tags": ["missing-modalities", "multimodal", "sentiment-analysis"],
    }
    if not rows:
        return metadata
    results = []
    for rate, seed, found in rows:
        metrics = [
            {"name": key, "type": key, "value": value}
            for key, value in sorted(found.items())
            if key not in _LEFT_OUT and isinstance(value, int | float)
        ]
        results.append(
            {
                "task": {"type": "sentiment-analysis", "name": "multimodal sentiment analysis"},
                "dataset": {
                    "name": f"{corpus or 'corpus'}, test split, missing rate {rate}, "
                    f"mask seed {seed}",
                    "type": corpus or "corpus",
                },
                "metrics": metrics,
            }
        )
    return metadata | {"model-index": [{"name": name, "results": results}]}


def _name(config: Mapping[str, Any]) -> str:
    return ARCHITECTURES.get(config["architecture"], config["architecture"])


def _body(config: Mapping[str, Any], rows: Rows, corpus: str | None) -> Iterator[str]:
    training, scale = config["training"], parse_scale(config["scale"])
    masks = training["masks"]
    yield f"# {_name(config)}, {corpus or 'multimodal sentiment'}"
    yield ""
    yield (
        "Scores the sentiment of a video clip of a person speaking from what is said, the sound "
        "and the face, also where parts of these are missing. "
        f"{'The model of' if config['architecture'] == 'mitfrnet' else 'A model compared in'} "
        f"{_PAPER}."
    )
    yield ""
    yield "```python"
    yield "from mitfrnet import load_model"
    yield ""
    yield 'print(load_model("<this folder>").predict("clip.mp4", text="what is said"))'
    yield "```"
    yield ""
    yield f"**Output:** {_output(scale)}."
    yield ""
    yield "## Training"
    yield ""
    clips = training["clips"]
    yield (
        f"- Data: {f'corpus `{corpus}`, ' if corpus else ''}{clips['train']} clips, and "
        f"{clips['valid']} to choose the epoch by (number {training['best_epoch']}); language "
        f"`{config['language']}`."
    )
    rate = "one per clip and epoch" if masks["rate"] is None else masks["rate"]
    yield (
        f"- What was hidden: pattern `{masks['pattern']}`, protocol `{masks['protocol']}`, missing "
        f"rate {rate}, mask seed {masks['params']['seed']}. Text is hidden token by token, before "
        "it is encoded."
    )
    encoder = config["features"]["text"]["identity"].get("encoder")
    yield f"- Text encoder: `{encoder}`, {config['text'].replace('finetuned', 'fine-tuned')}."
    for modality in MODALITIES[1:]:
        identity = config["features"][modality]["identity"]
        settings = json.dumps(identity.get("settings", {}), sort_keys=True)
        yield f"- {modality.capitalize()} features, {config['dims'][modality]}: `{settings}`."
    yield f"- Parameters: {training['parameters']:,}; training seed {training['seed']}."
    versions = ", ".join(f"{name} {number}" for name, number in sorted(config["versions"].items()))
    yield f"- Libraries: {versions}."
    yield ""
    yield "## Scores"
    yield ""
    yield from _score_table(rows)
    yield ""
    yield "## Intended use, and limits"
    yield ""
    yield (
        "For research on sentiment analysis with missing data. Not for decisions about people: "
        "what a face or a voice shows is not what a person feels, and no score says whether a "
        "person was scored fairly."
    )
    yield ""
    yield (
        "- Scores hold for clips like those trained on: their language, speakers, cameras and "
        "length. They were not measured by age, sex, skin colour or dialect."
    )
    yield ("- A score comes without a measure of its certainty, also where nearly all is missing.")
    yield "- One face per frame is looked at; with several people it may not be the speaker's."
    yield (
        "- Features must be made with the settings in `config.json`; the package makes them, and "
        "refuses other versions of its libraries unless told otherwise."
    )
    yield "- The terms of the training corpus apply to what was learned from it."


def _output(scale: LabelScale) -> str:
    if isinstance(scale, ClassScale):
        return f"one of the classes {', '.join(f'`{c}`' for c in scale.classes)}"
    return (
        f"a score from {scale.low:g} to {scale.high:g}, negative below {scale.neutral_point:g} and "
        "positive above"
    )


def _score_table(rows: Rows) -> Iterator[str]:
    if not rows:
        yield "This model was saved without its scores."
        return
    yield (
        f"On the test split, {rows[0][2]['n']} clips, with steps hidden as in training, at the "
        "missing rates given."
    )
    yield ""
    keys = [k for k in rows[0][2] if k not in _LEFT_OUT and not k.endswith("_swapped")]
    yield f"| missing rate | mask seed | {' | '.join(keys)} |"
    yield f"| ---: | ---: |{' ---: |' * len(keys)}"
    for rate, seed, found in rows:
        cells = ["" if found.get(k) is None else f"{found[k]:.3f}" for k in keys]
        yield f"| {rate} | {seed} | {' | '.join(cells)} |"
