"""A FastAPI app with one line more. Run it with `uvicorn fastapi_app:app` in this folder.

Every answer then has a row in `./inference_tables`: `infertap query "SELECT * FROM inference"`.
"""

from fastapi import FastAPI
from pydantic import BaseModel

from infertap import InferenceMiddleware, annotate, start_span

app = FastAPI()
app.add_middleware(InferenceMiddleware)  # This line is all that is needed.


class Text(BaseModel):
    """What `/classify` is asked."""

    text: str


@app.post("/classify")
def classify(body: Text) -> dict[str, float]:
    """How much of a text is written in capitals."""
    annotate(experiment="capitals-1")  # Facts of your own, in the column `tags` and on the span.
    with start_span("count capitals") as span:  # A child of the request's span, in the table `spans`.
        letters = [letter for letter in body.text if letter.isalpha()]
        loudness = sum(letter.isupper() for letter in letters) / max(1, len(letters))
        span.set_outputs({"loudness": loudness})
    return {"loudness": loudness}
