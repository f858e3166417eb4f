"""What is said in the sample corpus: a small grammar of opinions in graded strength."""

import numpy as np

# Topics: what is spoken about, and what one does with it when there is no opinion to give.
TOPICS = (
    (("film", "movie", "story", "ending", "show"), ("watched", "talked about")),
    (("book", "novel", "story"), ("read", "finished")),
    (("soup", "meal", "dinner", "cake", "pizza"), ("ordered", "shared")),
    (("hotel", "trip", "room", "flight"), ("booked", "paid for")),
    (("phone", "camera", "screen", "laptop"), ("bought", "used")),
    (("service", "waiter", "driver"), ("asked for", "waited for")),
    (("concert", "music", "band", "game"), ("listened to", "talked about")),
)
WHO = ("I", "we", "they", "my friends")
WHEN = ("today", "last night", "on Monday", "at noon", "last week", "in town", "after work")

# Opinions by grade: the words fit "the film was ..."; a leading verb fits "I ... the film".
ADJECTIVES = {
    3: ("wonderful", "brilliant", "fantastic", "excellent", "amazing", "superb", "perfect"),
    2: ("good", "great", "lovely", "nice", "enjoyable", "delightful", "really good"),
    1: ("fine", "pretty good", "quite nice", "not bad", "not bad at all", "rather pleasant"),
    -1: ("a bit dull", "rather weak", "not great", "hardly great", "not very good", "a bit boring"),
    -2: ("bad", "poor", "boring", "disappointing", "unpleasant", "annoying", "really bad"),
    -3: ("terrible", "awful", "horrible", "dreadful", "hopeless", "miserable", "pathetic"),
}
VERBS = {
    3: ("loved", "adored", "absolutely loved"),
    2: ("liked", "enjoyed", "really liked"),
    1: ("quite liked", "did not mind"),
    -1: ("did not like", "did not enjoy"),
    -2: ("disliked", "regretted"),
    -3: ("hated", "really hated", "could not stand"),
}
# Whole sentences, for the grades that lend themselves to it.
VERDICTS = {
    3: ("the best {noun} ever", "this {noun} was a real joy", "I would love this {noun} again"),
    2: ("this {noun} made me happy", "I am glad about the {noun}", "thanks for the lovely {noun}"),
    -2: ("this {noun} made me angry", "I am sad about the {noun}", "sorry about the poor {noun}"),
    -3: (
        "the worst {noun} ever",
        "this {noun} was a total mess",
        "never this horrible {noun} again",
    ),
}
FRAMES = (
    "the {noun} was {opinion}",
    "this {noun} is {opinion}",
    "honestly, the {noun} was {opinion}",
    "I found the {noun} {opinion}",
    "I think this {noun} is {opinion}",
    "to me the {noun} was {opinion}",
    "my sister found the {noun} {opinion}",
    "so far the {noun} is {opinion}",
    "the whole {noun} was {opinion}",
    "they say the {noun} is {opinion}",
)


def count_words(seconds: float) -> int:
    """Return how many words fit into a clip of this length at an easy pace."""
    return int(np.clip(np.floor((seconds - 0.2) / 0.29), 5, 8))


def grade(label_t: float) -> int:
    """Return the grade of wording for a text part: 0 without opinion, up to 3 either way."""
    return int(np.sign(label_t)) * int(np.digitize(abs(label_t), (0.7, 1.3, 2.1)))


def draw_sentence(label_t: float, *, longest: int, rng: np.random.Generator, said: set[str]) -> str:
    """Return a sentence of 4 to `longest` words that nobody has said, worded as `label_t` asks."""
    level = grade(label_t)
    while True:
        nouns, deeds = TOPICS[rng.integers(len(TOPICS))]
        noun = str(rng.choice(nouns))
        if level == 0:
            words = f"{rng.choice(WHO)} {rng.choice(deeds)} the {noun} {rng.choice(WHEN)}"
        else:
            kind = rng.choice(("frame", "verb", "verdict"), p=(0.65, 0.2, 0.15))
            if kind == "verdict" and level in VERDICTS:
                words = str(rng.choice(VERDICTS[level])).format(noun=noun)
            elif kind == "verb":
                words = f"I {rng.choice(VERBS[level])} {rng.choice(('the', 'this', 'that'))} {noun}"
                words += str(rng.choice(("", f" {rng.choice(WHEN)}")))
            else:
                opinion = str(rng.choice(ADJECTIVES[level]))
                words = str(rng.choice(FRAMES)).format(noun=noun, opinion=opinion)
        sentence = words[0].upper() + words[1:] + "."
        if 4 <= len(words.split()) <= longest and sentence not in said:
            return sentence
