"""The same words as each kind of sidecar writes them."""

import json

TEXTGRID = """File type = "ooTextFile"
Object class = "TextGrid"

0
2
<exists>
1
"IntervalTier"
"words"
0
2
3
0.5
0.75
"so"
0.75
1
"<eps>"
1
1.5
"far"
"""
CTM = """;; made by an aligner
clip 1 0.50 0.25 so 0.9
clip 1 0.75 0.25 <eps>
clip 1 1.00 0.50 far
"""
CUES = """00:00:00{0}500 --> 00:00:00{0}750
so

00:00:01{0}000 --> 00:00:01{0}500
far
"""
WORDS = [{"word": "so", "start": 0.5, "end": 0.75}, {"word": "far", "start": 1, "end": "1.5"}]

# "so" from 0.5 to 0.75 s and "far" from 1 to 1.5 s; a `.txt` has no times.
SO_FAR = {
    ".txt": "so far",
    ".textgrid": TEXTGRID,
    ".ctm": CTM,
    ".json": json.dumps(WORDS),
    ".srt": CUES.format(","),
    ".vtt": "WEBVTT\n\n" + CUES.format("."),
}
