"""What a model can be asked: the bodies of requests, checked."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json

from reformer.errors import UserError
from reformer.training.recipe_errors import first_message

Text = Annotated[str, Field(min_length=1)]
MaxNewTokens = Annotated[int, Field(ge=1, description="how many tokens to add")]


class Request(BaseModel):
    """What every request keeps to: JSON's own types, and no unknown fields."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Sequences(Request):
    """Sequences, of which each is answered by itself."""

    sequences: Annotated[list[Text], Field(min_length=1, description="letters of each, nothing between")]


class Generation(Request):
    """A continuation; see `reformer.generation.continuation.Sampling`."""

    prompt: Annotated[str, Field(description="what to continue")]
    max_new_tokens: MaxNewTokens = 200
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    seed: int = 0


class DnaGeneration(Generation):
    """A continuation in A, C, G and T."""

    prompt: Annotated[str, Field(description="bases to begin with; none for a sequence from nothing")] = ""


class Embedding(Sequences):
    """Vectors."""

    pooling: Annotated[Literal["mean", "last"], Field(description="over all tokens, or the last one's")] = (
        "mean"
    )


class DnaEmbedding(Embedding):
    """Vectors of DNA."""

    both_strands: Annotated[bool, Field(description="the mean with the reverse complement's")] = False


class LabelPrediction(Sequences):
    """Labels of sequences."""

    both_strands: Annotated[bool, Field(description="average with the reverse complement's")] = False


class BasePrediction(Sequences):
    """What is said of every base."""

    both_strands: Annotated[bool, Field(description="average over both strands")] = True


class GenePrediction(BasePrediction):
    """Genes."""

    open_ends: Annotated[bool, Field(description="call genes that ends of sequences cut off")] = True
    tracks: Annotated[bool, Field(description="give the probability of each class at each base too")] = False


AnyRequest = TypeVar("AnyRequest", bound=Request)


def read_request(kind: type[AnyRequest], body: bytes) -> AnyRequest:
    """Reads a body.

    Raises:
        UserError: it is not JSON, or not such a request.
    """
    try:
        values: Any = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise UserError(f"the body is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise UserError("the body is not a JSON object: expected {...}")
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        _, message = first_message((), values, error.errors(), kind.model_fields)
        raise UserError(message) from error
