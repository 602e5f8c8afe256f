"""The words of the page "press Forget", to be opened at its bottom."""

from __future__ import annotations

from html import escape

WORDS = {
    "private images": "those that people may ask to have forgotten; public images are never forgotten",
    "backbone": "the frozen network, trained on public images, that turns an image into features",
    "cluster, shard": "private images that are learned together; a shard is drawn by a hash",
    "bucket, sums": "the ridge head learns from sums over all images; a bucket keeps what some of them add to the sums",
    "prototype": "the mean feature of a cluster: an image belongs to the nearest one",
    "prompt": "values that are added to pixels at the rim of every image of a cluster, and learned",
    "head": "the linear classifier on features",
    "exact": "the model is, bit for bit, the one that a fit without the forgotten images gives: the fresh fit",
    "approximate": "the model is changed until it resembles that one",
    "hash": "a short number that is another one as soon as one bit of the model is another one",
    "sample gradient": "one image passed through the model and back, to learn from it",
    "reference model": "a model that an attacker trains on images of their choice, to compare the attacked one with",
    "membership score": "how sure a model is of an image's class, ln p - ln(1 - p); mostly higher with it in training",
    "LiRA": "asks which models the score looks more like: those trained with the image, or those without it",
    "log ratio": "LiRA's answer: the logarithm of how many times as likely the score is in models with it",
    "exposed": "an image is, if models with it and models without it score it differently",
}


def details() -> str:
    """The words as a list that opens and closes, in HTML."""
    rows = "".join(f"<p><b>{escape(word)}</b>: {escape(meaning)}</p>" for word, meaning in WORDS.items())
    return f'<details class="lmk-words"><summary>Words</summary><div>{rows}</div></details>'
