"""Section `extract.text`, apart from the extractor, which takes seconds to load."""

from typing import Annotated, Literal

from pydantic import Field

from mitfrnet.errors import ParamsError
from mitfrnet.params import StageParams


class TextParams(StageParams):
    """Section `extract.text`."""

    # By the corpus's language: `embedded`, a hub name, or a local folder.
    encoders: dict[str, Annotated[str, Field(min_length=1)]] = Field(min_length=1)
    max_tokens: int = Field(ge=3)  # longer transcripts are cut, but keep [CLS] and [SEP]
    batch_size: int = Field(gt=0)  # only with 1 do bytes not depend on the other clips
    device: Literal["cpu", "cuda"]


def encoder_for(params: TextParams, language: str, named: str | None) -> str:
    """Return the encoder of a corpus.

    Args:
        params: encoders by language.
        language: of the corpus.
        named: `text_encoder` of the corpus, which overrides `params`; None: not set.

    Raises:
        ParamsError: there is no encoder for the language.
    """
    if named is None and language not in params.encoders:
        raise ParamsError(
            f"params.yaml: extract.text.encoders: none for language {language!r} (found: "
            f"{', '.join(params.encoders)}; add one, such as "
            f"{language}: bert-base-multilingual-cased, or set text_encoder of the corpus)"
        )
    return named or params.encoders[language]
