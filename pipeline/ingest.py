"""Stage `ingest`: read a corpus as published, probe its clips, write the manifest."""

import argparse
from collections.abc import Iterator
from pathlib import Path

from mitfrnet.corpus.ingest import (
    IngestParams,
    Probed,
    add_transcripts,
    build_manifest,
    check_bad_fraction,
    probe_clips,
    read_corpus,
    summarise,
)
from mitfrnet.corpus.layouts.features import stored_descriptions
from mitfrnet.corpus.manifest import write_manifest
from mitfrnet.corpus.params import CorpusParams
from mitfrnet.files import write_json
from mitfrnet.params import check_name, load_params
from mitfrnet.workers.local import track
from mitfrnet.workers.params import RunParams
from pipeline import run_stage


def main(argv: list[str] | None = None) -> None:
    """Run the stage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--raw", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--transcripts", type=Path, required=True)
    parser.add_argument("--quality", type=Path, required=True)
    args = parser.parse_args(argv)

    name = check_name(args.corpus, "params.yaml: grid.corpora")
    corpus = load_params(CorpusParams, section=f"corpora.{name}")
    params = load_params(IngestParams, section="ingest")
    run = load_params(RunParams, section="run")
    clips = read_corpus(args.raw, corpus, params)
    probing = probe_clips(args.raw, clips, params.limits, run, media_url=corpus.media)
    probed = list(track(probing, total=len(clips), size=lambda _: 1, description="probe"))
    del clips, probing
    check_bad_fraction(probed, params.max_bad_fraction, args.raw)
    probed = add_transcripts(
        args.raw, probed, corpus, params.limits, store=args.transcripts, run=run
    )
    stored = stored_descriptions(args.raw) if corpus.layout == "features" else None
    manifest = build_manifest(_emptying(probed), corpus, params, stored)
    write_manifest(manifest, args.out)
    write_json(summarise(manifest), args.quality)


def _emptying(probed: list[Probed]) -> Iterator[Probed]:
    """Yield the clips and remove them from the list: a million of them take a gigabyte."""
    while probed:
        yield probed.pop()


if __name__ == "__main__":
    run_stage(main)
